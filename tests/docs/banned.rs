//! Words and phrases that the rules of English in CONTRIBUTING.md exclude.

use super::markdown::{Block, blocks, plain};
use super::{documents, fail_with};

/// Excluded words and phrases, each with what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("whoever", "name the actor"),
    ("whomever", "name the actor"),
    ("somebody", "name the actor"),
    ("someone", "name the actor"),
    ("nobody", "name the actor"),
    ("anew", "again"),
    ("lives by", "uses"),
    ("live by", "use"),
    ("told", "reported, announced or sent"),
    ("tells what", "reports what"),
    ("room", "space, a free record"),
    ("thought of", "checks"),
    ("tells of", "reveals"),
    ("tell of", "reveal"),
    ("affair", "responsibility"),
    ("farewell", "notification"),
    ("farewells", "notifications"),
    ("knock", "the filter's word"),
    ("knocks", "the filter's word"),
    ("bury", "reap"),
    ("buries", "reaps"),
    ("buried", "reaped"),
    ("corpse", "expired session"),
    ("corpses", "expired sessions"),
    ("condemned", "doomed"),
    ("homeless", "address removed"),
    ("rehang", "reschedule"),
    ("unhang", "cancel"),
    ("resting", "delayed, quarantined"),
    ("ladder", "offload level"),
    ("rung", "offload level"),
    ("rungs", "offload levels"),
    ("luck", "random value"),
    ("is led", "name the actor"),
    ("are led", "name the actor"),
    ("without a word", "silently"),
    ("whereabouts", "dynamic address"),
    ("stranger", "outside host"),
    ("strangers", "outside hosts"),
    ("so many", "give the number"),
    ("as many as", "up to, at most"),
    ("likewise", "leave it out"),
    ("is to", "must"),
    ("are to", "must"),
    ("is said", "name the actor"),
    ("it is meant", "say what it does"),
    ("gives back", "releases, removes"),
    ("takes back", "removes, restores"),
    ("taken back", "removed, restored"),
    ("take back", "remove, restore"),
    ("handed back", "passed to the host"),
    ("hand back", "pass to the host"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("picked up in the middle", "midstream"),
    ("exempt", "no_nat, bypass"),
    ("exempted", "no_nat, bypass"),
    ("disguise", "scrub"),
    ("piece", "fragment"),
    ("pieces", "fragments"),
    ("refusal", "reject"),
    ("shortage", "exhaustion"),
    ("shortages", "exhaustion"),
    ("trouble", "error, failure"),
    ("troubles", "errors, failures"),
    ("news", "event"),
];

/// Finds what the rules exclude in one piece of text; each finding names what to write instead.
pub(crate) fn findings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let words: Vec<String> = words(text).collect();
    let spaced = format!(" {} ", words.join(" "));
    for (phrase, instead) in BANNED {
        if spaced.contains(&format!(" {phrase} ")) {
            found.push(format!("\"{phrase}\" (instead: {instead})"));
        }
    }
    let lower = text.to_lowercase();
    for trailing in ["too", "also", "likewise"] {
        let ends = [".", ";", ":", ")", ","].iter().any(|mark| {
            lower.match_indices(&format!(" {trailing}{mark}")).any(|(at, _)| {
                !lower[..at].ends_with(|letter: char| letter.is_ascii_punctuation())
                    || lower[..at].ends_with(',')
            })
        });
        if ends || lower.ends_with(&format!(" {trailing}")) {
            found.push(format!("a trailing \"{trailing}\""));
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_alphanumeric() && !"-_'".contains(letter))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[test]
fn documents_use_none_of_the_words_that_the_rules_exclude() {
    let mut complaints = Vec::new();
    for document in documents() {
        for block in blocks(&document.text) {
            let Block::Prose { line, text } = block else { continue };
            // The changelog quotes the old names in code spans, which `plain` removes.
            for finding in findings(&plain(&text)) {
                complaints.push(format!("{}:{line}: {finding}", document.path));
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn excluded_words_are_found_as_whole_words_only() {
    assert!(findings("An uplink fails when its interface goes down.").is_empty());
    assert!(findings("The nobodyish amend-ment is news-worthy.").is_empty());
    assert_eq!(findings("It lives by\nits file."), ["\"lives by\" (instead: uses)"]);
    assert_eq!(findings("NOBODY answers."), ["\"nobody\" (instead: name the actor)"]);
    assert_eq!(findings("Fragments pass, too."), ["a trailing \"too\""]);
    assert!(findings("A packet that is too large for the uplink is dropped.").is_empty());
}
