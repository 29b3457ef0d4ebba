//! `cofferdam completion`

use super::args::{ANY, Fate, Flag, Grammar, Takes, Words};
use super::{Context, GLOBAL, VERBS, say};
use crate::error::Error;
use std::fmt::Write;

pub static GRAMMAR: Grammar = Grammar {
    name: "completion",
    summary: "print what completes command lines in a shell",
    arguments: "[bash]",
    about: "In ~/.bashrc:   eval \"$(cofferdam completion bash)\"",
    flags: &[] as &[Flag],
    count: (0, 1),
    verbatim_after: ANY,
};

pub fn run(context: &Context, said: &Words) -> Result<i32, Error> {
    match said.rest.first().map(|_| said.argument(0)).transpose()? {
        None | Some("bash") => say(&script(context.program())).map(|()| 0),
        Some(other) => Err(Error::Usage(format!("no completion for {other:?}: bash has one"))),
    }
}

/// The flags of a table as words, those that take a value apart.
fn flags(table: &[Flag]) -> (String, String) {
    let (mut all, mut with_value) = (String::from("--help"), String::new());
    for flag in table.iter().filter(|flag| flag.fate == Fate::Used) {
        let _ = write!(all, " --{}", flag.name);
        if flag.takes != Takes::Nothing {
            let _ = write!(with_value, "|--{}", flag.name);
            if !flag.short.is_empty() {
                let _ = write!(with_value, "|-{}", flag.short);
            }
        }
    }
    (all, with_value)
}

/// A function for bash. Behind a flag with a value, and where no id belongs, bash goes on with names of files.
fn script(program: &str) -> String {
    let verbs: Vec<&str> = VERBS.iter().map(|verb| verb.grammar.name).collect();
    let (global, global_values) = flags(GLOBAL.flags);
    let (mut cases, mut takes_id) = (String::new(), String::new());
    for verb in &VERBS {
        let grammar = verb.grammar;
        let (all, with_value) = flags(grammar.flags);
        let _ = writeln!(
            cases,
            "    {}) flags='{all}' values='{}' ;;",
            grammar.name,
            with_value.trim_start_matches('|')
        );
        if grammar.arguments.starts_with("<container-id>")
            && !matches!(grammar.name, "create" | "run" | "restore")
        {
            let _ = write!(takes_id, "|{}", grammar.name);
        }
    }
    format!(
        "_cofferdam() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} verb= root=() words= i
  local flags='{global}' values='{global_values}'
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      --root) root=(--root \"${{COMP_WORDS[i+1]}}\"); ((i++)) ;;
      {globals}) ((i++)) ;;
      -*) ;;
      *) verb=${{COMP_WORDS[i]}}; break ;;
    esac
  done
  case $verb in
{cases}  esac
  case $current in
    -*) words=$flags ;;
    *)
      if [[ \"|$values|\" == *\"|$before|\"* ]]; then return; fi
      case $verb in
        '') words='{verbs}' ;;
        help) words='{verbs}' ;;
        {ids}) words=$(\"${{COMP_WORDS[0]}}\" \"${{root[@]}}\" list --quiet 2>/dev/null) ;;
      esac ;;
  esac
  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))
}}
complete -o default -F _cofferdam {program}
",
        globals = global_values.trim_start_matches('|').replace("--root|", ""),
        global_values = global_values.trim_start_matches('|'),
        verbs = verbs.join(" "),
        ids = takes_id.trim_start_matches('|'),
    )
}

#[cfg(test)]
mod tests {
    use super::script;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What bash offers behind these words, the last of which may be unfinished.
    fn offered(words: &[&str]) -> Vec<String> {
        let list: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let ask = format!(
            "{}\ncofferdam() {{ echo \"one two-$1\"; }}\nCOMP_WORDS=(cofferdam {}); COMP_CWORD={}; _cofferdam; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script("cofferdam"),
            list.join(" "),
            words.len()
        );
        let mut bash = Command::new("bash")
            .arg("--norc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        bash.stdin.take().unwrap().write_all(ask.as_bytes()).unwrap();
        let out = bash.wait_with_output().unwrap();
        assert!(out.status.success(), "{ask}");
        String::from_utf8(out.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn verbs_and_flags_are_offered() {
        assert_eq!(offered(&["re"]), ["resume", "restore"]);
        assert_eq!(offered(&["--root", "/r", "--debug", "kil"]), ["kill"]);
        assert_eq!(offered(&["--log-f"]), ["--log-format"]);
        assert_eq!(offered(&["create", "--pid"]), ["--pidfd-socket", "--pid-file"]);
        assert_eq!(offered(&["help", "sta"]), ["start", "state"]);
        // A file's name belongs there, which bash completes by itself.
        assert!(offered(&["create", "--bundle", ""]).is_empty() && offered(&["create", "-b", ""]).is_empty());
        assert!(offered(&["create", ""]).is_empty());
    }

    #[test]
    fn containers_are_offered() {
        assert_eq!(offered(&["--root", "/r", "kill", "o"]), ["one"]);
        // Their names are asked for where the root is.
        assert_eq!(offered(&["--root", "/r", "start", "two-"]), ["two---root"]);
    }
}
