//! From bytes to values, with an error that says where.

use crate::{Mount, Process, Profile, Refused, Spec, profile};
use oci_spec::runtime::LinuxResources;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest config.json or process.json that is read, in bytes. Docker's is 40 kB, most of it seccomp; a pod with a
/// thousand mounts has 300 kB. What is larger is no config, and the caller's memory is not its to take.
pub const FILE_LIMIT: u64 = 16 << 20;

/// Why a document could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read; the path is the one that was asked for.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// It is read, and refused.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Spec {
    /// Reads config.json from `path`, but for a seccomp profile, which may be left unread.
    ///
    /// # Errors
    /// As [`Spec::parse`], and when the file cannot be read.
    pub fn load(path: &Path) -> Result<Spec, LoadError> {
        let text = read(path, "config.json")?;
        match String::from_utf8(text) {
            Ok(text) => Ok(Spec::parse_most(text)?),
            Err(error) => Ok(Spec::parse(error.as_bytes())?),
        }
    }

    /// Reads config.json from memory, but for a seccomp profile, which may be left unread ([`Profile`]).
    ///
    /// # Errors
    /// As [`Spec::parse`].
    pub fn parse_most(text: String) -> Result<Spec, Refused> {
        let Some(mut spec) = cofferdam_json::read_leaving::<Spec>(&text, profile::WANTED) else {
            return Spec::parse(text.as_bytes());
        };
        if let Some(profile) = &mut spec.linux.seccomp {
            profile.keep(text);
        }
        spec.accepted()
    }

    /// Reads a profile that was left unread.
    ///
    /// # Errors
    /// When it is not JSON or has a value of the wrong type.
    pub fn read_all(&mut self) -> Result<(), Refused> {
        if let Some(profile) = &mut self.linux.seccomp {
            *profile = Profile::Read(profile.read()?.into_owned());
        }
        Ok(())
    }

    /// Reads config.json from memory.
    ///
    /// # Errors
    /// When it is not JSON, has a value of the wrong type (the message has the line, the pointer the place), or is of a
    /// version of the runtime-spec that is not 1.x up to 1.3.
    pub fn parse(text: &[u8]) -> Result<Spec, Refused> {
        parse::<Spec>(text, "config.json")?.accepted()
    }

    fn accepted(mut self) -> Result<Spec, Refused> {
        crate::check::version(&self.oci_version)?;
        self.bound_hooks()?;
        Ok(self)
    }
}

impl Process {
    /// Reads a process document, as `exec --process` takes it, from `path`.
    ///
    /// # Errors
    /// As [`Process::parse`], and when the file cannot be read.
    pub fn load(path: &Path) -> Result<Process, LoadError> {
        Ok(Process::parse(&read(path, "process.json")?)?)
    }

    /// Reads a process document from memory.
    ///
    /// # Errors
    /// When it is not JSON or has a value of the wrong type.
    pub fn parse(text: &[u8]) -> Result<Process, Refused> {
        parse(text, "process.json")
    }
}

/// Reads resources by themselves, as config.json would have them in `/linux/resources`: what `update` takes.
///
/// # Errors
/// When it is not JSON or has a value of the wrong type.
pub fn parse_resources(text: &[u8]) -> Result<LinuxResources, Refused> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Document {
        #[serde(deserialize_with = "crate::linux::resources")]
        resources: Option<LinuxResources>,
    }
    Ok(parse::<Document>(text, "resources")?.resources.unwrap_or_default())
}

/// Reads mounts by themselves, as `mounts add` takes them: a list, or an object that has one as config.json does.
///
/// # Errors
/// When it is not JSON, has a value of the wrong type, or is an object without `mounts`.
pub fn parse_mounts(text: &[u8]) -> Result<Vec<Mount>, Refused> {
    #[derive(Deserialize)]
    #[serde(expecting = "a list of mounts, or an object with `mounts`")]
    struct Document {
        mounts: Vec<Mount>,
    }
    if text.trim_ascii_start().starts_with(b"[") {
        return parse(text, "mounts");
    }
    Ok(parse::<Document>(text, "mounts")?.mounts)
}

fn read(path: &Path, file: &'static str) -> Result<Vec<u8>, LoadError> {
    let wrap = |source| LoadError::Read { path: path.display().to_string(), source };
    let mut text = Vec::new();
    let source = File::open(path).map_err(wrap)?;
    if let Ok(metadata) = source.metadata() {
        text.reserve_exact(metadata.len().min(FILE_LIMIT) as usize + 1);
    }
    source.take(FILE_LIMIT + 1).read_to_end(&mut text).map_err(wrap)?;
    if text.len() as u64 > FILE_LIMIT {
        let mut refused = Refused::new("", "config.md", format!("is larger than {FILE_LIMIT} bytes"));
        refused.file = file;
        return Err(refused.into());
    }
    Ok(text)
}

fn parse<T: DeserializeOwned>(text: &[u8], file: &'static str) -> Result<T, Refused> {
    // Checking UTF-8 once for the whole text is cheaper than once a string.
    let refuse = |pointer: String, message: String| Refused { file, pointer, message, section: "config.md" };
    let text =
        str::from_utf8(text).map_err(|error| refuse(String::new(), format!("is not UTF-8: {error}")))?;
    cofferdam_json::from_str(text).map_err(|error| {
        let pointer =
            if error.is_data() { pointer_at(text, error.line(), error.column()) } else { String::new() };
        let message = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = message.strip_suffix(&place).unwrap_or(&message);
        refuse(pointer, format!("{what} (line {})", error.line()))
    })
}

/// `null` is the default, as Go reads it.
pub(crate) fn nullable<'de, D, T>(input: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

/// The JSON pointer of the value that ends at, or is the last to begin before, a line and column (both from 1).
///
/// serde_json says only where it stopped reading. The text up to there is well-formed, so that a scan which keeps the
/// open objects and arrays is enough.
fn pointer_at(text: &str, line: usize, column: usize) -> String {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut scan = Scan { text: text.as_bytes(), end: (start + column).min(text.len()), open: Vec::new() };
    scan.run();
    scan.pointer()
}

/// What is open at some place of a JSON text.
struct Scan<'a> {
    text: &'a [u8],
    end: usize,
    open: Vec<Open>,
}

enum Open {
    Array(usize),
    Object(Option<String>),
}

impl Scan<'_> {
    fn run(&mut self) {
        let (mut at, mut key_next) = (0, false);
        while at < self.end {
            match self.text[at] {
                b'{' => {
                    self.open.push(Open::Object(None));
                    key_next = true;
                }
                b'[' => self.open.push(Open::Array(0)),
                b'}' | b']' if at + 1 < self.end => {
                    self.open.pop();
                }
                b',' if at + 1 < self.end => match self.open.last_mut() {
                    Some(Open::Array(index)) => *index += 1,
                    _ => key_next = true,
                },
                b'"' => {
                    let string = self.string(&mut at);
                    if key_next && let Some(Open::Object(key)) = self.open.last_mut() {
                        *key = Some(string);
                        key_next = false;
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The string whose quote stands at `at`, which moves to the closing one. Escapes are left as they are.
    fn string(&self, at: &mut usize) -> String {
        let begin = *at + 1;
        *at = begin;
        while *at < self.text.len() && self.text[*at] != b'"' {
            *at += if self.text[*at] == b'\\' { 2 } else { 1 };
        }
        String::from_utf8_lossy(&self.text[begin..(*at).min(self.text.len())]).into_owned()
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for open in &self.open {
            match open {
                Open::Array(index) => pointer.push_str(&format!("/{index}")),
                Open::Object(Some(key)) => {
                    pointer.push('/');
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                }
                Open::Object(None) => {}
            }
        }
        pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Spec::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_type_is_refused_with_pointer_and_line() {
        let text = "{\n \"ociVersion\": \"1.0.2\",\n \"process\": {\"user\": {\"uid\": 0},\n  \"args\": [\"a\", 7]}\n}";
        assert_eq!(
            refusal(text),
            "config.json /process/args/1: invalid type: integer `7`, expected a string (line 4)"
        );
    }

    #[test]
    fn an_annotation_bounds_hooks_without_a_timeout() {
        let text = |value: &str| {
            format!(
                "{{\"ociVersion\": \"1.0.2\", \"annotations\": {{\"cofferdam.hooks.timeout\": \"{value}\"}}, \"hooks\": \
                 {{\"prestart\": [{{\"path\": \"/a\"}}, {{\"path\": \"/b\", \"timeout\": 3}}], \"poststop\": [{{\"path\": \"/c\"}}]}}}}"
            )
        };
        let spec = Spec::parse(text("30").as_bytes()).unwrap();
        let timeouts: Vec<_> =
            spec.hooks.kinds().iter().flat_map(|(_, hooks)| hooks.iter().map(|hook| hook.timeout)).collect();
        assert_eq!(timeouts, [Some(30), Some(3), Some(30)]);
        for value in ["", "0", "-1", "1.5", "5s", "4294967296"] {
            assert_eq!(
                refusal(&text(value)),
                format!(
                    "config.json /annotations/cofferdam.hooks.timeout: {value:?} is no number of seconds greater than zero that \
                     fits 32 bits"
                )
            );
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_pointer_and_line() {
        let text = "{\"ociVersion\": \"1.0.2\", \"process\": {\"user\": {\"uid\": 4294967296}}}";
        assert_eq!(
            refusal(text),
            "config.json /process/user/uid: invalid value: integer `4294967296`, expected u32 (line 1)"
        );
        let text = "{\"ociVersion\": \"1.0.2\", \"process\": {\"user\": {\"uid\": -1}}}";
        assert_eq!(
            refusal(text),
            "config.json /process/user/uid: invalid value: integer `-1`, expected u32 (line 1)"
        );
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_line() {
        assert_eq!(refusal("{\n\"a\": }"), "config.json: expected value (line 2)");
        assert_eq!(refusal(""), "config.json: EOF while parsing a value (line 1)");
        assert_eq!(
            Spec::parse(b"\xff").unwrap_err().to_string(),
            "config.json: is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"
        );
    }

    #[test]
    fn null_is_absent() {
        let spec = Spec::parse(
            br#"{"ociVersion":"1.2.0","process":{"args":null,"env":null,"user":{"additionalGids":null}},
                "mounts":null,"hooks":null,"hostname":null,"linux":{"resources":null,"namespaces":null}}"#,
        )
        .unwrap();
        assert!(spec.mounts.is_empty() && spec.hooks.is_empty() && spec.linux.namespaces.is_empty());
    }

    #[test]
    fn a_pids_object_without_a_limit_is_no_limit() {
        let spec = Spec::parse(br#"{"ociVersion":"1.3.0","linux":{"resources":{"pids":{}}}}"#).unwrap();
        assert!(spec.linux.resources.unwrap().pids().is_none());
        let spec =
            Spec::parse(br#"{"ociVersion":"1.3.0","linux":{"resources":{"pids":{"limit":0}}}}"#).unwrap();
        assert_eq!(spec.linux.resources.unwrap().pids().unwrap().limit(), 0);
    }

    #[test]
    fn names_are_taken_in_any_case() {
        let text = br#"{"ociVersion":"1.3.0","Linux":{"Resources":{"CPU":{"Cpus":"0"},"hugepageLimits":[{"pagesize":"2MB","limit":7}],
            "Unified":{"Memory.High":"1"}},"Seccomp":{"DefaultAction":"SCMP_ACT_ALLOW"}},"Annotations":{"A":"b"}}"#;
        let spec = Spec::parse(text).unwrap();
        let resources = spec.linux.resources.unwrap();
        assert_eq!(resources.cpu().as_ref().unwrap().cpus().as_deref(), Some("0"));
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
        assert_eq!(resources.unified().as_ref().unwrap()["Memory.High"], "1");
        assert!(spec.linux.seccomp.is_some());
        assert_eq!(spec.annotations["A"], "b");
        let twice = br#"{"ociVersion":"1.3.0","linux":{"resources":{"cpu":{"shares":7,"cpus":"1"},"CPU":{"Cpus":"0","Mems":"0"}}}}"#;
        let spec = Spec::parse(twice).unwrap();
        let cpu = spec.linux.resources.unwrap().cpu().clone().unwrap();
        assert_eq!(
            (cpu.shares(), cpu.cpus().as_deref(), cpu.mems().as_deref()),
            (Some(7), Some("0"), Some("0"))
        );
        assert_eq!(
            refusal(r#"{"ociVersion":"1.0.2","Linux":{"Resources":{"CPU":{"Shares":"1"}}}}"#),
            "config.json /Linux/Resources/CPU/Shares: invalid type: string \"1\", expected u64 (line 1)"
        );
    }

    #[test]
    fn resources_are_read_by_themselves() {
        let resources = parse_resources(br#"{"CPU":{"shares":3},"pids":{}}"#).unwrap();
        assert_eq!(resources.cpu().as_ref().unwrap().shares(), Some(3));
        assert!(resources.pids().is_none());
        assert_eq!(parse_resources(b"null").unwrap(), LinuxResources::default());
        assert_eq!(
            parse_resources(br#"{"cpu":{"shares":-3}}"#).unwrap_err().to_string(),
            "resources /cpu/shares: invalid value: integer `-3`, expected u64 (line 1)"
        );
    }

    #[test]
    fn mounts_are_read_by_themselves_in_both_forms() {
        let list = r#"[{"destination": "/a", "Type": "tmpfs", "source": "tmpfs"}]"#;
        let mounts = parse_mounts(list.as_bytes()).unwrap();
        assert_eq!(
            (mounts.len(), mounts[0].destination.as_str(), mounts[0].fstype.as_str()),
            (1, "/a", "tmpfs")
        );
        let object = format!(r#"{{"ociVersion": "1.0.0", "mounts": {list}}}"#);
        assert_eq!(parse_mounts(object.as_bytes()).unwrap(), mounts);
        for (text, words) in [
            ("{}", "mounts: missing field `mounts` (line 1)"),
            (
                " [{\"destination\": 1}]",
                "mounts /0/destination: invalid type: integer `1`, expected a string (line 1)",
            ),
            (
                "7",
                "mounts: invalid type: integer `7`, expected a list of mounts, or an object with `mounts` (line 1)",
            ),
        ] {
            assert_eq!(parse_mounts(text.as_bytes()).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn unknown_properties_are_passed_over() {
        let text = br#"{"ociVersion":"1.0.2","x":{"y":[1]},"vm":{"kernel":{}},"linux":{"hyperspeed":9}}"#;
        assert!(Spec::parse(text).is_ok());
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused_unread() {
        let path = std::env::temp_dir().join(format!("cofferdam-spec-{}.json", std::process::id()));
        File::create(&path).unwrap().set_len(FILE_LIMIT + 1).unwrap();
        let error = Spec::load(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(error, "config.json: is larger than 16777216 bytes");
    }

    #[test]
    fn a_missing_file_names_its_path() {
        let error = Spec::load(Path::new("/nonexistent/config.json")).unwrap_err();
        assert_eq!(error.to_string(), "read /nonexistent/config.json");
    }

    #[test]
    fn a_pointer_escapes_its_keys() {
        let text = r#"{"ociVersion":"1.0.2","annotations":{"a/b~c":1}}"#;
        assert_eq!(
            refusal(text),
            "config.json /annotations/a~1b~0c: invalid type: integer `1`, expected a string (line 1)"
        );
    }

    /// A config with each of its bytes gone, or another in its place, is the same value here, or none.
    #[test]
    fn a_damaged_config_is_never_taken_for_another() {
        let text = crate::default_spec_json(true, None);
        assert_eq!(cofferdam_json::read::<Spec>(&text), serde_json::from_str(&text).ok());
        for at in 0..text.len() {
            for other in ["", "\"", "\\", "0", ",", "}", " "] {
                let damaged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                if let Some(spec) = cofferdam_json::read::<Spec>(&damaged) {
                    assert_eq!(spec, serde_json::from_str(&damaged).unwrap(), "{damaged}");
                }
            }
        }
    }
}
