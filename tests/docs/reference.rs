//! `docs/reference/{drop-reasons,counters}.md`, made from the code.

use std::fmt::Write as _;
use std::fs;

use natbox::nat::{Counters, DropReason};

use super::{blesses, root};

fn row(page: &mut String, name: &str, explanation: &str) {
    let _ = writeln!(page, "| `{name}` | {} |", explanation.trim().replace('|', "\\|"));
}

fn drop_reasons() -> String {
    let mut page = String::from(
        "# Drop reasons\n\n\
         Every packet that natbox drops has exactly one of these reasons. `natbox status` shows each\n\
         reason that occurred with its count, and `natbox status --json` has them under `drops`.\n\
         `natbox drops` shows the last packets of each. The names are stable.\n\n\
         This page is made from the code: `just bless` rewrites it.\n\n\
         | reason | meaning | what to do |\n|---|---|---|\n",
    );
    for reason in DropReason::ALL {
        let meaning = format!("{} | {}", reason.explanation().trim(), reason.advice());
        let _ = writeln!(page, "| `{}` | {meaning} |", reason.name());
    }
    page.push_str(
        "\nSome reasons mean that a resource is exhausted and that the operator can provide more of it\n\
         (RFC 6888 REQ-11). While packets are dropped for one of them, natbox logs a warning and emits\n\
         the event `resource-exhausted` once a minute:\n\n",
    );
    for reason in DropReason::ALL.iter().filter(|reason| reason.is_shortage()) {
        let _ = writeln!(page, "- `{}`", reason.name());
    }
    page
}

fn counters() -> String {
    let mut page = String::from(
        "# Counters\n\n\
         Each worker counts on its own and publishes its counters once per batch. `natbox status --json`\n\
         has the sums under `totals` and each worker's own under `workers`. The signal USR1 writes the\n\
         sums to the log. Counters start at zero when the process starts and never decrease. The names\n\
         are stable. [Drop reasons](drop-reasons.md) are counted apart.\n\n\
         This page is made from the code: `just bless` rewrites it.\n\n\
         | counter | meaning |\n|---|---|\n",
    );
    for (name, explanation) in Counters::NAMES.iter().zip(Counters::EXPLANATIONS) {
        row(&mut page, name, explanation);
    }
    page
}

#[track_caller]
fn compare(path: &str, page: &str) {
    let file = root().join(path);
    if blesses() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, page).unwrap();
        return;
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "{path} differs from the code; run: just bless");
}

#[test]
fn the_page_of_drop_reasons_equals_the_code() {
    compare("docs/reference/drop-reasons.md", &drop_reasons());
}

#[test]
fn the_page_of_counters_equals_the_code() {
    assert_eq!(Counters::NAMES.len(), Counters::EXPLANATIONS.len());
    compare("docs/reference/counters.md", &counters());
}
