//! Words of a text as terms: a word gives itself, its pieces, its stem, and pairs of syllables.
//! Knows scripts; knows nothing of files or scores.
//!
//! Text is taken in NFKC, so that half and full width are one, and in lower case. Runs never cross
//! scripts: a Latin word with a Korean particle gives the Latin word. Particles and endings are a
//! closed list; the longest one goes, and only when two syllables are left.

use std::collections::HashSet;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization;

/// A longer word is cut: nobody searches for an encoded image.
const WORD_CHARS_MAX: usize = 64;

/// Particles and endings of Korean, the longest first.
static PARTICLES: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let mut found: Vec<&str> = include_str!("particles.txt").split_whitespace().collect();
    found.sort_by_key(|particle| std::cmp::Reverse(particle.chars().count()));
    found
});

static STOPWORDS: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("stopwords.txt").split_whitespace().collect());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    Latin,
    Hangul,
    /// Han and Kana: no spaces between words.
    Han,
}

/// One run of letters of one script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub script: Script,
    /// All of it, in lower case.
    pub whole: String,
    /// The parts of an identifier, when there are several.
    pub pieces: Vec<String>,
}

impl Word {
    /// What it means without its ending.
    pub(crate) fn stem(&self) -> &str {
        stem(self.script, &self.whole)
    }

    /// Pairs of neighbouring syllables; a single one stands alone.
    pub(crate) fn pairs(&self) -> Vec<String> {
        if self.script == Script::Latin { Vec::new() } else { pairs(&self.whole) }
    }

    pub(crate) fn is_stopword(&self) -> bool {
        STOPWORDS.contains(self.whole.as_str())
    }
}

/// Pairs of neighbouring characters.
pub(crate) fn pairs(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    match chars.len() {
        0 => Vec::new(),
        1 => vec![text.to_owned()],
        _ => chars.windows(2).map(|pair| pair.iter().collect()).collect(),
    }
}

/// A word without its ending.
pub(crate) fn stem(script: Script, word: &str) -> &str {
    match script {
        Script::Latin => english_stem(word),
        Script::Hangul => korean_stem(word),
        Script::Han => word,
    }
}

fn korean_stem(word: &str) -> &str {
    let stripped = PARTICLES.iter().find_map(|particle| {
        word.strip_suffix(particle).filter(|rest| rest.chars().nth(1).is_some())
    });
    stripped.unwrap_or(word)
}

/// Plurals and the commonest endings of verbs; light, so that different words stay apart.
fn english_stem(word: &str) -> &str {
    if !word.is_ascii() || word.bytes().any(|byte| !byte.is_ascii_lowercase()) {
        return word;
    }
    let shorter = |suffix: &str, least: usize| {
        word.strip_suffix(suffix).filter(|rest| rest.len() >= least && has_vowel(rest))
    };
    if let Some(rest) = shorter("ing", 3).or_else(|| shorter("ed", 3)) {
        return undoubled(rest);
    }
    if word.ends_with("ss") || word.ends_with("us") || word.ends_with("is") {
        return word;
    }
    let sibilant = ["sses", "shes", "ches", "xes", "zes"];
    if sibilant.iter().any(|ending| word.ends_with(ending)) {
        return shorter("es", 3).unwrap_or(word);
    }
    let plural = shorter("s", 3).unwrap_or(word);
    // "cache" and "caching" meet at "cach".
    plural.strip_suffix('e').filter(|rest| rest.len() >= 3).unwrap_or(plural)
}

fn has_vowel(word: &str) -> bool {
    word.bytes().any(|byte| b"aeiouy".contains(&byte))
}

/// "planned" and "plan" meet at "plan".
fn undoubled(word: &str) -> &str {
    match word.as_bytes() {
        [.., a, b] if a == b && !b"lsz".contains(a) => word.get(..word.len() - 1).unwrap_or(word),
        _ => word,
    }
}

fn script_of(letter: char) -> Option<Script> {
    match letter {
        '\u{1100}'..='\u{11FF}' | '\u{AC00}'..='\u{D7A3}' => Some(Script::Hangul),
        '\u{3040}'..='\u{30FF}'
        | '\u{31F0}'..='\u{31FF}'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{20000}'..='\u{3FFFF}' => Some(Script::Han),
        letter if letter.is_alphanumeric() => Some(Script::Latin),
        _ => None,
    }
}

/// The words of a text, in order.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let letters: Vec<char> = text.nfkc().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&letter) = letters.get(at) {
        let Some(script) = script_of(letter) else {
            at += 1;
            continue;
        };
        let end = run_end(&letters, at, script);
        let run = letters.get(at..end.min(at + WORD_CHARS_MAX)).unwrap_or(&[]);
        found.push(word(script, run));
        at = end;
    }
    found
}

/// Where the run that begins at `at` ends. Signs between two Latin letters join them.
fn run_end(letters: &[char], at: usize, script: Script) -> usize {
    let is_own = |i: usize| letters.get(i).copied().and_then(script_of) == Some(script);
    let joins = |i: usize| {
        let sign = letters.get(i).is_some_and(|sign| matches!(sign, '-' | '_' | '.' | '/' | ':'));
        script == Script::Latin && sign
    };
    let mut end = at;
    loop {
        if is_own(end) {
            end += 1;
        } else if joins(end) && is_own(end + 1) {
            end += 2;
        } else {
            return end;
        }
    }
}

fn word(script: Script, run: &[char]) -> Word {
    let whole: String = run.iter().flat_map(|letter| letter.to_lowercase()).collect();
    let mut pieces = Vec::new();
    if script == Script::Latin {
        let mut piece = String::new();
        for (i, &letter) in run.iter().enumerate() {
            let before = i.checked_sub(1).and_then(|i| run.get(i)).copied();
            let after = run.get(i + 1).copied();
            let camel = letter.is_uppercase()
                && (before.is_some_and(char::is_lowercase)
                    || before.is_some_and(char::is_uppercase)
                        && after.is_some_and(char::is_lowercase));
            let sign = !letter.is_alphanumeric();
            if (camel || sign) && !piece.is_empty() {
                pieces.push(std::mem::take(&mut piece));
            }
            if !sign {
                piece.extend(letter.to_lowercase());
            }
        }
        if !pieces.is_empty() && !piece.is_empty() {
            pieces.push(piece);
        }
        pieces.retain(|piece| piece.chars().nth(1).is_some());
    }
    Word { script, whole, pieces }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wholes(text: &str) -> Vec<String> {
        words(text).into_iter().map(|word| word.whole).collect()
    }

    #[test]
    fn identifiers_give_themselves_and_their_pieces() {
        let found = words("Run pm-worker, fooBarHTTPServer or install_all.js.");
        let pieces: Vec<_> = found.iter().map(|word| word.pieces.join(" ")).collect();
        assert_eq!(pieces, ["", "pm worker", "foo bar http server", "", "install all js"]);
        assert_eq!(found[4].whole, "install_all.js");
    }

    #[test]
    fn runs_do_not_cross_scripts_and_widths_are_one() {
        // "gen" with a Korean ending; full-width "ABC"; two Han characters.
        assert_eq!(
            wholes("gen\u{d558}\u{ace0} \u{ff21}\u{ff22}\u{ff23}\u{6f22}\u{5b57}"),
            ["gen", "\u{d558}\u{ace0}", "abc", "\u{6f22}\u{5b57}"]
        );
        // Decomposed Hangul is what it is composed.
        assert_eq!(wholes("\u{1100}\u{1175}\u{110b}\u{1165}\u{11a8}"), ["\u{ae30}\u{c5b5}"]);
    }

    #[test]
    fn particles_go_when_two_syllables_are_left() {
        let parallel_of = "\u{bcd1}\u{b82c}\u{c5d0}\u{c11c}\u{b294}";
        assert_eq!(words(parallel_of)[0].stem(), "\u{bcd1}\u{b82c}");
        let meeting = "\u{d68c}\u{c758}";
        assert_eq!(words(meeting)[0].stem(), meeting);
        assert_eq!(words("\u{bcd1}\u{b82c}\u{c791}\u{c5c5}")[0].pairs().len(), 3);
    }

    #[test]
    fn english_endings_meet_and_different_words_stay_apart() {
        let one = |word: &str| words(word)[0].stem().to_owned();
        for (a, b) in [("hooks", "hook"), ("planned", "plan"), ("caches", "caching")] {
            assert_eq!(one(a), one(b), "{a} and {b}");
        }
        for (a, b) in [("auth", "author"), ("pass", "pas"), ("bus", "bu"), ("sing", "s")] {
            assert_ne!(one(a), one(b), "{a} and {b}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_bounded_words(text in any::<String>()) {
            for word in words(&text) {
                prop_assert!(!word.whole.is_empty());
                prop_assert!(!word.stem().is_empty());
                prop_assert!(!word.pairs().iter().any(String::is_empty));
            }
        }
    }
}
