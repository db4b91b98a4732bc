//! The filter of a command: its trailing words.

use clap::Args;

use super::exit::Failure;
use crate::filter::FilterExpression;

/// The filter of a command that selects sessions or packets.
#[derive(Debug, Args)]
pub(super) struct FilterArgument {
    /// Filter, as words: `tcp from 203.0.113.0/24 to :443 uplink isp1`
    ///
    /// Without words, everything matches. `docs/guide/filters.md` describes the language. Quote
    /// brackets and the signs `<` and `>` for the shell.
    #[arg(value_name = "FILTER")]
    words: Vec<String>,
}

impl FilterArgument {
    /// Returns the words as one text.
    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }

    /// Reads the filter.
    ///
    /// # Errors
    /// A user error that names the column of the wrong word and the nearest one of the language.
    pub(super) fn parse(&self) -> Result<FilterExpression, Failure> {
        self.text().parse().map_err(Failure::user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argument(words: &[&str]) -> FilterArgument {
        FilterArgument { words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    #[test]
    fn words_are_one_filter_however_the_shell_splits_them() {
        let (split, quoted) = (["tcp", "to", ":443"], ["tcp to :443"]);
        assert_eq!(argument(&split).parse().unwrap(), argument(&quoted).parse().unwrap());
        assert!(argument(&[]).parse().unwrap().is_empty());
    }

    #[test]
    fn options_may_follow_the_words() {
        #[derive(clap::Parser)]
        struct Command {
            #[arg(long)]
            json: bool,
            #[command(flatten)]
            filter: FilterArgument,
        }
        let words = ["command", "tcp", "to", ":443", "--json"];
        let command = <Command as clap::Parser>::try_parse_from(words).unwrap();
        assert_eq!((command.json, &command.filter.text()[..]), (true, "tcp to :443"));
    }

    #[test]
    fn a_wrong_word_is_named_with_its_column_and_the_nearest_one() {
        let failure = argument(&["tcp", "fron", "10.0.0.1"]).parse().unwrap_err();
        let Failure::User(error) = failure else { panic!("{failure:?}") };
        let error = error.to_string();
        assert!(error.contains("column 5") && error.contains("from"), "{error}");
    }
}
