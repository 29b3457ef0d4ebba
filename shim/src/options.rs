//! The options of a runtime, in the four shapes in which they come: `containerd.runc.v1.Options`, CRI's
//! `runtimeoptions.v1.Options` around a TOML table (what CRI sends to every runtime type but `io.containerd.runc.v2`),
//! `containerd.linux.runc.CreateOptions` (what the client of containerd 1.x makes of `ctr run --no-pivot` or `--uidmap`, for every
//! type but that one), or none at all (moby, unless asked).

use cofferdam_proto::{Any, Message, linux_runc_options, runc_options, runtime_options, type_url};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Options, resolved. Written to `options.json` of the bundle, from which `delete` reads them when the shim is gone: under
/// containerd's own names, so that either shim can clean up after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Use MS_MOVE and chroot in place of pivot_root.
    #[serde(skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    /// Keep the caller's session keyring.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    /// The cgroup that the shim itself goes to.
    #[serde(skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// Owner of the pipes that containers get.
    #[serde(skip_serializing_if = "is_default")]
    pub io_uid: u32,
    /// Group of these pipes.
    #[serde(skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// Another runtime's binary, to be run as runc is run.
    #[serde(skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// The state root, below which there is one folder a namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub root: String,
    /// systemd makes the cgroups.
    #[serde(skip_serializing_if = "is_default")]
    pub systemd_cgroup: bool,
    /// Where CRIU's images go.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_image_path: String,
    /// Where CRIU works.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_work_path: String,
    /// They came in a message that cannot say who makes the cgroups. Of no use once a container is there, so not written.
    #[serde(skip)]
    pub driver_is_open: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where the state of containers lies when no option names a root.
pub const ROOT: &str = "/run/containerd/cofferdam";

/// The same for another runtime's binary: containerd's folder for runc.
pub const BINARY_ROOT: &str = "/run/containerd/runc";

/// Name of the options' file in a bundle.
const FILE: &str = "options.json";

impl Options {
    /// Options out of an `Any`; none of it, or an empty one, means defaults.
    ///
    /// # Errors
    /// A sentence that names what is not understood.
    pub fn from_any(any: Option<&Any>) -> Result<Options, String> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
        if type_url::names(&any.type_url, type_url::RUNC_OPTIONS) {
            let options = runc_options::Options::parse_from_bytes(&any.value);
            return Ok(options.map_err(|error| format!("unmarshal {}: {error}", any.type_url))?.into());
        }
        if type_url::names(&any.type_url, type_url::LINUX_RUNC_CREATE_OPTIONS) {
            let options = linux_runc_options::CreateOptions::parse_from_bytes(&any.value);
            return Ok(options.map_err(|error| format!("unmarshal {}: {error}", any.type_url))?.into());
        }
        if type_url::names(&any.type_url, type_url::RUNTIME_OPTIONS) {
            let options = runtime_options::Options::parse_from_bytes(&any.value)
                .map_err(|error| format!("unmarshal {}: {error}", any.type_url))?;
            return Options::from_cri(&options);
        }
        Err(format!("runtime options of type {:?} are not supported", any.type_url))
    }

    fn from_cri(options: &runtime_options::Options) -> Result<Options, String> {
        if options.config_path.is_empty() {
            let text = std::str::from_utf8(&options.config_body)
                .map_err(|_| "runtime options are not UTF-8".to_string())?;
            return Options::from_toml(text);
        }
        let path = &options.config_path;
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("read runtime options {path}: {error}"))?;
        Options::from_toml(&text).map_err(|error| format!("{path}: {error}"))
    }

    /// Options out of TOML: the flat table that containerd's `config.toml` has under `runtimes.X.options`. A key that is not ours,
    /// a value of another type, and everything else that TOML can do, is refused.
    fn from_toml(text: &str) -> Result<Options, String> {
        let mut options = Options::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            options
                .take_toml(line)
                .map_err(|error| format!("runtime options, line {}: {error}", number + 1))?;
        }
        Ok(options)
    }

    fn take_toml(&mut self, line: &str) -> Result<(), String> {
        let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} is no \"key = value\""))?;
        let (key, value) = (key.trim().trim_matches('"'), TomlValue::parse(value.trim())?);
        match key {
            "NoPivotRoot" => self.no_pivot_root = value.boolean()?,
            "NoNewKeyring" => self.no_new_keyring = value.boolean()?,
            "ShimCgroup" => self.shim_cgroup = value.text()?,
            "IoUid" => self.io_uid = value.number()?,
            "IoGid" => self.io_gid = value.number()?,
            "BinaryName" => self.binary_name = value.text()?,
            "Root" => self.root = value.text()?,
            "SystemdCgroup" => self.systemd_cgroup = value.boolean()?,
            "CriuImagePath" => self.criu_image_path = value.text()?,
            "CriuWorkPath" => self.criu_work_path = value.text()?,
            // containerd 1.x wrote these with their defaults; the paths of CRIU's binary and the task API's address are not
            // used by today's shims either.
            "CriuPath" | "TaskApiAddress" if value == TomlValue::Text(String::new()) => {}
            "TaskApiVersion" if value == TomlValue::Number(0) => {}
            _ => return Err(format!("unknown key {key:?}")),
        }
        Ok(())
    }

    /// Whether nothing here says who makes the cgroups.
    pub fn leave_the_driver_open(&self) -> bool {
        self.driver_is_open || *self == Options::default()
    }

    /// Writes `options.json`, and `runtime`, which older shims read, into the bundle.
    pub fn save(&self, bundle: &Path) -> std::io::Result<()> {
        write_private(&bundle.join(FILE), &serde_json::to_vec(self)?)?;
        write_private(&bundle.join("runtime"), self.binary_name.as_bytes())
    }

    /// Reads what [`Options::save`] or containerd's own shim wrote; defaults when there is nothing.
    pub fn load(bundle: &Path) -> std::io::Result<Options> {
        let mut options = match std::fs::read(bundle.join(FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Options::default(),
            Err(error) => return Err(error),
        };
        if options.binary_name.is_empty() {
            options.binary_name = match std::fs::read_to_string(bundle.join("runtime")) {
                Ok(name) => name,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error),
            };
        }
        Ok(options)
    }
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

impl From<runc_options::Options> for Options {
    fn from(options: runc_options::Options) -> Options {
        Options {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            binary_name: options.binary_name,
            root: options.root,
            systemd_cgroup: options.systemd_cgroup,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
            driver_is_open: false,
        }
    }
}

impl From<linux_runc_options::CreateOptions> for Options {
    fn from(options: linux_runc_options::CreateOptions) -> Options {
        Options {
            no_pivot_root: options.no_pivot_root,
            no_new_keyring: options.no_new_keyring,
            shim_cgroup: options.shim_cgroup,
            io_uid: options.io_uid,
            io_gid: options.io_gid,
            criu_image_path: options.criu_image_path,
            criu_work_path: options.criu_work_path,
            driver_is_open: true,
            ..Options::default()
        }
    }
}

/// The options of a checkpoint, in either shape; none means defaults.
///
/// # Errors
/// A sentence that names what is not understood.
pub fn of_checkpoint(any: Option<&Any>) -> Result<runc_options::CheckpointOptions, String> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(runc_options::CheckpointOptions::default());
    };
    if type_url::names(&any.type_url, type_url::RUNC_CHECKPOINT_OPTIONS) {
        return runc_options::CheckpointOptions::parse_from_bytes(&any.value)
            .map_err(|error| format!("unmarshal {}: {error}", any.type_url));
    }
    if type_url::names(&any.type_url, type_url::LINUX_RUNC_CHECKPOINT_OPTIONS) {
        let options = linux_runc_options::CheckpointOptions::parse_from_bytes(&any.value)
            .map_err(|error| format!("unmarshal {}: {error}", any.type_url))?;
        return Ok(runc_options::CheckpointOptions {
            exit: options.exit,
            open_tcp: options.open_tcp,
            external_unix_sockets: options.external_unix_sockets,
            terminal: options.terminal,
            file_locks: options.file_locks,
            empty_namespaces: options.empty_namespaces,
            cgroups_mode: options.cgroups_mode,
            work_path: options.work_path,
            image_path: options.image_path,
            ..Default::default()
        });
    }
    Err(format!("checkpoint options of type {:?} are not supported", any.type_url))
}

#[derive(Debug, PartialEq, Eq)]
enum TomlValue {
    Boolean(bool),
    Number(u32),
    Text(String),
}

impl TomlValue {
    fn parse(text: &str) -> Result<TomlValue, String> {
        if let Some(rest) = text.strip_prefix('"') {
            return basic_string(rest);
        }
        if let Some(rest) = text.strip_prefix('\'') {
            let (literal, rest) = rest.split_once('\'').ok_or_else(|| format!("{text} has no end"))?;
            return only_comment(rest).map(|()| TomlValue::Text(literal.into()));
        }
        let value = text.split('#').next().unwrap_or_default().trim();
        match value {
            "true" => Ok(TomlValue::Boolean(true)),
            "false" => Ok(TomlValue::Boolean(false)),
            _ => value
                .parse()
                .map(TomlValue::Number)
                .map_err(|_| format!("{value:?} is no boolean, number or string")),
        }
    }

    fn boolean(self) -> Result<bool, String> {
        if let TomlValue::Boolean(value) = self { Ok(value) } else { Err("a boolean is wanted".into()) }
    }

    fn number(self) -> Result<u32, String> {
        if let TomlValue::Number(value) = self { Ok(value) } else { Err("a number is wanted".into()) }
    }

    fn text(self) -> Result<String, String> {
        if let TomlValue::Text(value) = self { Ok(value) } else { Err("a string is wanted".into()) }
    }
}

/// The rest of a basic string, behind its opening quote.
fn basic_string(text: &str) -> Result<TomlValue, String> {
    let mut value = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return only_comment(characters.as_str()).map(|()| TomlValue::Text(value)),
            '\\' => value.push(match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(same @ ('"' | '\\')) => same,
                other => return Err(format!("escape {other:?} is not supported")),
            }),
            other => value.push(other),
        }
    }
    Err(format!("\"{text} has no end"))
}

fn only_comment(rest: &str) -> Result<(), String> {
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') { Ok(()) } else { Err(format!("{rest:?} behind a string")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, message: &impl Message) -> Any {
        Any { type_url: type_url.into(), value: message.write_to_bytes().unwrap(), ..Default::default() }
    }

    #[test]
    fn runc_s_options_are_ours() {
        let message = runc_options::Options {
            binary_name: "crun".into(),
            io_uid: 7,
            systemd_cgroup: true,
            root: "/r".into(),
            ..Default::default()
        };
        let expected = Options {
            binary_name: "crun".into(),
            io_uid: 7,
            systemd_cgroup: true,
            root: "/r".into(),
            ..Options::default()
        };
        assert_eq!(Options::from_any(Some(&any("containerd.runc.v1.Options", &message))), Ok(expected));
        assert_eq!(Options::from_any(None), Ok(Options::default()));
    }

    #[test]
    fn cri_s_table_is_read() {
        let body = "# from config.toml\nBinaryName = \"/usr/bin/run\\\"c\"\nIoUid = 12\nSystemdCgroup = true # yes\nRoot = '/a b'\n";
        let message = runtime_options::Options { config_body: body.into(), ..Default::default() };
        let expected = Options {
            binary_name: "/usr/bin/run\"c".into(),
            io_uid: 12,
            systemd_cgroup: true,
            root: "/a b".into(),
            ..Options::default()
        };
        assert_eq!(Options::from_any(Some(&any("runtimeoptions.v1.Options", &message))), Ok(expected));
    }

    #[test]
    fn the_old_client_s_options_are_read() {
        let message = linux_runc_options::CreateOptions {
            no_pivot_root: true,
            io_uid: 7,
            io_gid: 8,
            shim_cgroup: "/s".into(),
            ..Default::default()
        };
        let options = Options::from_any(Some(&any("containerd.linux.runc.CreateOptions", &message))).unwrap();
        assert!(options.leave_the_driver_open());
        let expected = Options {
            no_pivot_root: true,
            io_uid: 7,
            io_gid: 8,
            shim_cgroup: "/s".into(),
            driver_is_open: true,
            ..Options::default()
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn a_checkpoint_s_options_are_read_in_both_shapes() {
        let new = runc_options::CheckpointOptions {
            exit: true,
            image_path: "/i".into(),
            work_path: "/w".into(),
            ..Default::default()
        };
        let old = linux_runc_options::CheckpointOptions {
            exit: true,
            image_path: "/i".into(),
            work_path: "/w".into(),
            ..Default::default()
        };
        assert_eq!(of_checkpoint(Some(&any("containerd.runc.v1.CheckpointOptions", &new))), Ok(new.clone()));
        assert_eq!(of_checkpoint(Some(&any("containerd.linux.runc.CheckpointOptions", &old))), Ok(new));
        assert_eq!(of_checkpoint(None), Ok(runc_options::CheckpointOptions::default()));
        assert_eq!(
            of_checkpoint(Some(&any("x.Options", &old))).unwrap_err(),
            "checkpoint options of type \"x.Options\" are not supported"
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let refused = |body: &str| Options::from_toml(body).unwrap_err();
        assert_eq!(refused("\nColour = 1"), "runtime options, line 2: unknown key \"Colour\"");
        assert_eq!(refused("IoUid = \"7\""), "runtime options, line 1: a number is wanted");
        assert_eq!(
            refused("IoUid = 4294967296"),
            "runtime options, line 1: \"4294967296\" is no boolean, number or string"
        );
        assert_eq!(refused("[table]"), "runtime options, line 1: \"[table]\" is no \"key = value\"");
        let other = Any { type_url: "x.Options".into(), value: vec![1], ..Default::default() };
        assert_eq!(
            Options::from_any(Some(&other)).unwrap_err(),
            "runtime options of type \"x.Options\" are not supported"
        );
    }

    #[test]
    fn options_outlive_the_shim() {
        let bundle = std::env::temp_dir().join(format!("shim-options-{}", std::process::id()));
        std::fs::create_dir_all(&bundle).unwrap();
        assert_eq!(Options::load(&bundle).unwrap(), Options::default());
        let options = Options { binary_name: "crun".into(), io_gid: 3, ..Options::default() };
        options.save(&bundle).unwrap();
        assert_eq!(
            std::fs::read_to_string(bundle.join("options.json")).unwrap(),
            r#"{"io_gid":3,"binary_name":"crun"}"#
        );
        assert_eq!(Options::load(&bundle).unwrap(), options);
        std::fs::remove_dir_all(&bundle).unwrap();
    }
}
