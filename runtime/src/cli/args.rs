//! The command line's grammar: verbs and flags are tables, one parser reads all of them, one printer makes every help page.
//!
//! What the callers do (features.md 1.3) is more than one convention: `--flag value`, `--flag=value`, long flags behind a
//! single dash (Go's `flag`, go-runc's `-no-subreaper`), options behind the container's id (runc's own tests), `-` for stdin,
//! and for `exec` and `ps` a tail that belongs to somebody else. Hence a parser of our own; it allocates for what was given.

use crate::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

/// One flag of a verb.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// Another name, one letter; empty for none.
    pub short: &'static str,
    /// What follows it.
    pub takes: Takes,
    /// For the help page.
    pub help: &'static str,
    /// What becomes of it.
    pub fate: Fate,
}

/// What follows a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true`, `=false`.
    Nothing,
    /// A value; the last one counts.
    Value,
    /// A value each time.
    Values,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what its help says.
    Used,
    /// It is taken and means nothing, and the help page says so.
    Ignored,
    /// As [`Fate::Used`], but not on the help page.
    Hidden,
}

/// A flag without a value.
pub const fn switch(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag { name, short, takes: Takes::Nothing, help, fate: Fate::Used }
}

/// A flag with a value.
pub const fn value(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag { name, short, takes: Takes::Value, help, fate: Fate::Used }
}

/// A flag that may be repeated.
pub const fn values(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag { name, short, takes: Takes::Values, help, fate: Fate::Used }
}

impl Flag {
    /// The flag, taken without effect.
    pub const fn ignored(self) -> Flag {
        Flag { fate: Fate::Ignored, ..self }
    }

    /// The flag, unmentioned.
    pub const fn hidden(self) -> Flag {
        Flag { fate: Fate::Hidden, ..self }
    }

    fn is(&self, name: &[u8]) -> bool {
        self.name.as_bytes() == name || (!self.short.is_empty() && self.short.as_bytes() == name)
    }
}

/// What may be said to one verb, or in front of it.
#[derive(Debug)]
pub struct Grammar {
    /// The verb.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// The positional arguments, as the help page shows them.
    pub arguments: &'static str,
    /// More help; may be empty.
    pub about: &'static str,
    /// Its flags.
    pub flags: &'static [Flag],
    /// How many positional arguments there are, at least and at most.
    pub count: (usize, usize),
    /// From behind this many positional arguments on, everything is taken as it stands.
    pub verbatim_after: usize,
}

/// No limit.
pub const ANY: usize = usize::MAX;

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    flags: Vec<(&'static str, OsString)>,
    /// Positional arguments.
    pub rest: Vec<OsString>,
    /// `--help` or `-h` was among the flags.
    pub help: bool,
}

impl Grammar {
    /// Reads flags and positional arguments until `words` ends, or, for `until_word`, until the first word that is no flag.
    pub fn parse(&self, words: &mut dyn Iterator<Item = OsString>, until_word: bool) -> Result<Words, Error> {
        let mut said = Words::default();
        let mut words = words.peekable();
        loop {
            if said.rest.len() >= self.verbatim_after {
                // `exec ID -- cmd` and `exec ID cmd` are the same.
                let _ = words.next_if(|word| word == "--");
                said.rest.extend(words);
                break;
            }
            let Some(word) = words.next() else { break };
            let bytes = word.as_bytes();
            if bytes == b"--" {
                said.rest.extend(words);
                break;
            }
            // A lone dash is stdin's name.
            if bytes.len() < 2 || bytes[0] != b'-' {
                said.rest.push(word);
                if until_word {
                    break;
                }
                continue;
            }
            self.flag(&word, &mut words, &mut said)?;
        }
        Ok(said)
    }

    /// One word that begins with a dash.
    fn flag(
        &self,
        word: &OsStr,
        words: &mut dyn Iterator<Item = OsString>,
        said: &mut Words,
    ) -> Result<(), Error> {
        let bytes = word.as_bytes();
        let bare = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
        let (name, given) = match bare.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bare[..at], Some(&bare[at + 1..])),
            None => (bare, None),
        };
        let Some(flag) = self.flags.iter().find(|flag| flag.is(name)) else {
            if name == b"help" || name == b"h" {
                said.help = true;
                return Ok(());
            }
            if bytes[1] != b'-' && given.is_none() && self.cluster(name, said) {
                return Ok(());
            }
            return Err(Error::Usage(format!(
                "flag provided but not defined: -{} (see {} --help)",
                String::from_utf8_lossy(name),
                if self.name.is_empty() { "cofferdam" } else { self.name },
            )));
        };
        let value = match (flag.takes, given) {
            (Takes::Nothing, given) => truth(flag.name, given.unwrap_or(b"true"))?,
            (_, Some(given)) => OsString::from_vec(given.to_vec()),
            (_, None) => words
                .next()
                .ok_or_else(|| Error::Usage(format!("flag needs an argument: --{}", flag.name)))?,
        };
        if flag.fate != Fate::Ignored {
            said.flags.push((flag.name, value));
        }
        Ok(())
    }

    /// `-it`: letters that are all switches.
    fn cluster(&self, letters: &[u8], said: &mut Words) -> bool {
        let found: Option<Vec<&Flag>> = letters
            .iter()
            .map(|letter| {
                self.flags
                    .iter()
                    .find(|flag| flag.takes == Takes::Nothing && flag.short.as_bytes() == [*letter])
            })
            .collect();
        match found {
            Some(flags) => {
                said.flags.extend(flags.iter().map(|flag| (flag.name, "true".into())));
                true
            }
            None => false,
        }
    }

    /// Whether there are as many positional arguments as the verb takes; in runc's words.
    pub fn check_count(&self, said: &Words) -> Result<(), Error> {
        let (least, most) = self.count;
        let count = said.rest.len();
        let limit = match () {
            () if (least..=most).contains(&count) => return Ok(()),
            () if least == most => format!("exactly {least}"),
            () if count < least => format!("a minimum of {least}"),
            () => format!("a maximum of {most}"),
        };
        Err(Error::Usage(format!("cofferdam: {:?} requires {limit} argument(s)", self.name)))
    }

    /// The help page of a verb.
    pub fn help(&self, program: &str) -> String {
        let mut page = format!(
            "NAME:\n   {program} {} - {}\n\nUSAGE:\n   {program} {} [options] {}\n",
            self.name, self.summary, self.name, self.arguments
        );
        if !self.about.is_empty() {
            let _ = write!(page, "\n{}\n", self.about);
        }
        page.push_str("\nOPTIONS:\n");
        page.push_str(&flag_lines(self.flags));
        page
    }
}

/// The flags of a help page, one line each.
pub fn flag_lines(flags: &[Flag]) -> String {
    let title = |flag: &Flag| {
        let value = if flag.takes == Takes::Nothing { "" } else { " value" };
        match flag.short {
            "" => format!("--{}{value}", flag.name),
            short => format!("--{}{value}, -{short}{value}", flag.name),
        }
    };
    let shown = flags.iter().filter(|flag| flag.fate != Fate::Hidden);
    let mut lines: Vec<(String, String)> = shown
        .map(|flag| {
            let note = match flag.fate {
                Fate::Ignored => " (accepted without effect)",
                _ if flag.takes == Takes::Values => " (may be repeated)",
                _ => "",
            };
            (title(flag), format!("{}{note}", flag.help))
        })
        .collect();
    lines.push(("--help, -h".into(), "show help".into()));
    let width = lines.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
    lines.iter().fold(String::new(), |mut page, (title, help)| {
        let _ = writeln!(page, "   {title:width$}  {help}");
        page
    })
}

/// A boolean as Go's strconv reads it.
fn truth(name: &str, text: &[u8]) -> Result<OsString, Error> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok("true".into()),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok("false".into()),
        _ => {
            let text = String::from_utf8_lossy(text);
            Err(Error::Usage(format!("invalid boolean value {text:?} for --{name}")))
        }
    }
}

impl Words {
    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.switch(name) == Some(true)
    }

    /// What a switch says, if it was given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }

    /// A flag's last value.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_os_str())
    }

    /// A flag's last value that is not empty, as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// A flag's last value that is not empty, as text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.value(name) {
            Some(value) if !value.is_empty() => utf8(name, value).map(Some),
            _ => Ok(None),
        }
    }

    /// All values of a flag, as text.
    pub fn texts(&self, name: &str) -> Result<Vec<&str>, Error> {
        self.flags.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| utf8(name, value)).collect()
    }

    /// A flag's last value as a number: the whole of it, or an error.
    pub fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Error> {
        match self.text(name)? {
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    Err(Error::Usage(format!("invalid value {text:?} for --{name}: not a number that fits")))
                }
            },
            None => Ok(None),
        }
    }

    /// A positional argument as text.
    pub fn argument(&self, index: usize) -> Result<&str, Error> {
        match self.rest.get(index) {
            Some(word) => utf8("argument", word),
            None => Err(Error::usage("too few arguments")),
        }
    }
}

fn utf8<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, Error> {
    value.to_str().ok_or_else(|| Error::Usage(format!("{name}: {value:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Grammar = Grammar {
        name: "sample",
        summary: "try things",
        arguments: "<container-id>",
        about: "",
        flags: &[
            value("bundle", "b", "the bundle"),
            switch("tty", "t", "a terminal"),
            switch("detach", "d", "no waiting"),
            values("env", "e", "a variable"),
            switch("no-subreaper", "", "no effect").ignored(),
        ],
        count: (1, 1),
        verbatim_after: ANY,
    };

    fn parse(words: &[&str]) -> Result<Words, Error> {
        SAMPLE.parse(&mut words.iter().map(OsString::from), false)
    }

    #[test]
    fn all_spellings_of_a_value_are_the_same() {
        for words in [
            &["--bundle", "/b", "id"][..],
            &["--bundle=/b", "id"],
            &["-bundle", "/b", "id"],
            &["-bundle=/b", "id"],
            &["-b", "/b", "id"],
            &["-b=/b", "id"],
            &["id", "--bundle", "/b"],
            &["--bundle", "/other", "--bundle", "/b", "--", "id"],
        ] {
            let said = parse(words).unwrap();
            assert_eq!(said.value("bundle").unwrap(), "/b", "{words:?}");
            assert_eq!(said.rest, ["id"], "{words:?}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash() {
        let said = parse(&["--bundle", "-1", "-", "--env=A=-b", "-e", "--c"]).unwrap();
        assert_eq!(said.value("bundle").unwrap(), "-1");
        assert_eq!(said.rest, ["-"]);
        assert_eq!(said.texts("env").unwrap(), ["A=-b", "--c"]);
    }

    #[test]
    fn switches_take_truth_values_and_come_in_clusters() {
        for (words, want) in [
            (&["-t"][..], Some(true)),
            (&["--tty=false"], Some(false)),
            (&["-tty=0"], Some(false)),
            (&["--tty", "--tty=F"], Some(false)),
            (&["-dt"], Some(true)),
            (&["x"], None),
        ] {
            assert_eq!(parse(words).unwrap().switch("tty"), want, "{words:?}");
        }
        let text = parse(&["--tty=maybe"]).unwrap_err().to_string();
        assert_eq!(text, "invalid boolean value \"maybe\" for --tty");
    }

    #[test]
    fn what_is_unknown_or_incomplete_is_refused() {
        let refusal = |words: &[&str]| parse(words).unwrap_err().to_string();
        assert_eq!(refusal(&["--nope=1"]), "flag provided but not defined: -nope (see sample --help)");
        assert_eq!(refusal(&["-dx"]), "flag provided but not defined: -dx (see sample --help)");
        assert_eq!(refusal(&["id", "--bundle"]), "flag needs an argument: --bundle");
    }

    #[test]
    fn an_ignored_flag_is_taken() {
        let said = parse(&["-no-subreaper", "id"]).unwrap();
        assert_eq!((said.on("no-subreaper"), said.rest.len()), (false, 1));
    }

    #[test]
    fn the_count_of_arguments_is_told_as_runc_does() {
        let count = |count, words: &[&str]| {
            let grammar = Grammar { count, ..SAMPLE };
            let said = grammar.parse(&mut words.iter().map(OsString::from), false).unwrap();
            grammar.check_count(&said).map_err(|error| error.to_string())
        };
        assert_eq!(count((1, 1), &["a"]), Ok(()));
        for (limits, words, want) in [
            ((1, 1), &["a", "b"][..], "exactly 1"),
            ((1, 2), &[], "a minimum of 1"),
            ((1, 2), &["a", "b", "c"], "a maximum of 2"),
        ] {
            let text = format!("cofferdam: \"sample\" requires {want} argument(s)");
            assert_eq!(count(limits, words), Err(text));
        }
    }

    #[test]
    fn a_verbatim_tail_is_not_looked_at() {
        let grammar = Grammar { verbatim_after: 1, count: (1, ANY), ..SAMPLE };
        let tail = |words: &[&str]| grammar.parse(&mut words.iter().map(OsString::from), false).unwrap();
        assert_eq!(tail(&["-t", "id", "ls", "-b", "--", "-t"]).rest, ["id", "ls", "-b", "--", "-t"]);
        assert_eq!(tail(&["id", "--", "ls"]).rest, ["id", "ls"]);
        assert_eq!(tail(&["id", "-aux"]).rest, ["id", "-aux"]);
    }

    #[test]
    fn numbers_are_whole_or_refused() {
        let said = |text: &str| parse(&["--bundle", text]).unwrap().number::<u32>("bundle");
        assert_eq!(said("7").unwrap(), Some(7));
        for text in ["7x", " 7", "-1", "4294967296", "1.5"] {
            let refusal = said(text).unwrap_err().to_string();
            assert_eq!(refusal, format!("invalid value {text:?} for --bundle: not a number that fits"));
        }
    }

    #[test]
    fn the_help_page_shows_every_flag_and_what_it_is_worth() {
        let page = SAMPLE.help("cofferdam");
        assert!(page.starts_with("NAME:\n   cofferdam sample - try things\n"), "{page}");
        assert!(page.contains("   --bundle value, -b value  the bundle\n"), "{page}");
        assert!(
            page.contains("   --no-subreaper            no effect (accepted without effect)\n"),
            "{page}"
        );
        assert!(page.contains("   --env value, -e value     a variable (may be repeated)\n"), "{page}");
        assert!(parse(&["-h"]).unwrap().help && parse(&["id", "--help"]).unwrap().help);
    }
}
