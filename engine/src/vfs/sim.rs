//! A simulated disk: live and durable bytes, faults from a seed.
//! Knows files, names and sectors; knows nothing of what the bytes mean.
