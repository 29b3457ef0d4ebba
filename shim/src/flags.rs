//! The command line, read as Go's `flag` package reads it, for that is how containerd writes it: one dash or two, a value
//! behind `=` or as the next argument, and everything ends at the first word without a dash.

/// What containerd, or our own `start`, asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `-debug`: log at debug level.
    pub debug: bool,
    /// `-v`, `-version`: print the version.
    pub version: bool,
    /// `-info`: describe the runtime.
    pub info: bool,
    /// `-namespace`
    pub namespace: String,
    /// `-id`: of the container that the call is about; of a group's first one for the daemon.
    pub id: String,
    /// `-socket`: the path to serve on instead of descriptor 3.
    pub socket: String,
    /// `-bundle`, with `delete`; elsewhere the working directory is the bundle.
    pub bundle: String,
    /// `-address`: containerd's gRPC socket.
    pub address: String,
    /// `start`, `delete`, or nothing to serve.
    pub action: String,
}

impl Flags {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// The sentence that Go's package would print.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Flags, String> {
        let mut flags = Flags::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(rest) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                flags.action = argument;
                break;
            };
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            if rest.is_empty() {
                flags.action = arguments.next().unwrap_or_default();
                break;
            }
            let (name, value) = match rest.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (rest, None),
            };
            if let Some(switch) = flags.switch(name) {
                *switch = match value.as_deref() {
                    None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
                    Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
                    Some(other) => {
                        return Err(format!("invalid boolean value {other:?} for -{name}: parse error"));
                    }
                };
            } else {
                let value = value.or_else(|| arguments.next());
                flags.take(name, value.ok_or_else(|| format!("flag needs an argument: -{name}"))?)?;
            }
        }
        Ok(flags)
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "debug" => Some(&mut self.debug),
            "v" | "version" => Some(&mut self.version),
            "info" => Some(&mut self.info),
            _ => None,
        }
    }

    fn take(&mut self, name: &str, value: String) -> Result<(), String> {
        match name {
            "namespace" => self.namespace = value,
            "id" => self.id = value,
            "socket" => self.socket = value,
            "bundle" => self.bundle = value,
            "address" => self.address = value,
            // containerd's own binary, which older shims ran to publish an event, and a socket for Go's profiler: the Go
            // shim of today uses neither of them either.
            "publish-binary" | "debug-socket" => {}
            _ => return Err(format!("flag provided but not defined: -{name}")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn containerds_own_line_is_understood() {
        let flags = parse(
            "-namespace moby -address /run/c.sock -publish-binary /usr/bin/containerd -id web -debug start",
        );
        let expected = Flags {
            debug: true,
            namespace: "moby".into(),
            id: "web".into(),
            address: "/run/c.sock".into(),
            action: "start".into(),
            ..Flags::default()
        };
        assert_eq!(flags, Ok(expected));
    }

    #[test]
    fn dashes_and_equals_signs_are_go_s() {
        let flags = parse("--id=a -debug=false -- delete").unwrap();
        assert_eq!((flags.id.as_str(), flags.debug, flags.action.as_str()), ("a", false, "delete"));
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        assert_eq!(parse("-frobnicate start"), Err("flag provided but not defined: -frobnicate".into()));
        assert_eq!(parse("-id"), Err("flag needs an argument: -id".into()));
    }
}
