//! Wraps a file system and counts calls and bytes by kind.
//! Knows which call was made; knows nothing of why, nor of what passes through a map.
