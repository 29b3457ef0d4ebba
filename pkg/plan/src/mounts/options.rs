//! The words of `/mounts/N/options` (config.md, "Linux mount options").

use cofferdam_step::{Attributes, FsOption, Propagation};

// include/uapi/linux/mount.h
pub(crate) const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;
const MS_SYNCHRONOUS: u64 = 16;
const MS_MANDLOCK: u64 = 64;
const MS_DIRSYNC: u64 = 128;
const MS_NOSYMFOLLOW: u64 = 256;
const MS_NOATIME: u64 = 1024;
const MS_NODIRATIME: u64 = 2048;
const MS_SILENT: u64 = 1 << 15;
pub(crate) const MS_UNBINDABLE: u64 = 1 << 17;
pub(crate) const MS_PRIVATE: u64 = 1 << 18;
pub(crate) const MS_SLAVE: u64 = 1 << 19;
pub(crate) const MS_SHARED: u64 = 1 << 20;
const MS_RELATIME: u64 = 1 << 21;
const MS_I_VERSION: u64 = 1 << 23;
const MS_STRICTATIME: u64 = 1 << 24;
const MS_LAZYTIME: u64 = 1 << 25;

pub(crate) const ATTR_RDONLY: u64 = 1;
pub(crate) const ATTR_NOSUID: u64 = 2;
pub(crate) const ATTR_NODEV: u64 = 4;
pub(crate) const ATTR_NOEXEC: u64 = 8;
/// The field that holds one of relatime (0), noatime and strictatime.
const ATTR_ATIME: u64 = 0x70;
const ATTR_RELATIME: u64 = 0;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Flags of the filesystem as a whole.
const SUPERBLOCK: u64 =
    MS_RDONLY | MS_SYNCHRONOUS | MS_MANDLOCK | MS_DIRSYNC | MS_SILENT | MS_I_VERSION | MS_LAZYTIME;
/// Attributes that a less privileged mount namespace may not take away (`lock_mnt_tree` in `fs/namespace.c`), besides times of access.
const LOCKABLE: u64 = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC;
/// An attribute that it may.
const UNLOCKED: u64 = ATTR_NOSYMFOLLOW;
const ATIME_FLAGS: u64 = MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;

/// Flags of one mount, and their attributes.
const PER_MOUNT: [(u64, u64); 6] = [
    (MS_RDONLY, ATTR_RDONLY),
    (MS_NOSUID, ATTR_NOSUID),
    (MS_NODEV, ATTR_NODEV),
    (MS_NOEXEC, ATTR_NOEXEC),
    (MS_NODIRATIME, ATTR_NODIRATIME),
    (MS_NOSYMFOLLOW, ATTR_NOSYMFOLLOW),
];

/// What one word does.
enum Word {
    Set(u64),
    Clear(u64),
    Propagation(u64, bool),
    SetAll(u64),
    ClearAll(u64),
    Bind(bool),
    Remount,
    CopyUp,
    Idmap(bool),
    CopyLink,
    SourceItself,
    OverLink,
    SetOfFilesystem(u64),
    ClearOfFilesystem(u64),
    Nothing,
}

/// Every word of the spec's three tables, runc's `tmpcopyup`, and those that crun adds (`idmap=…` is in [`Parsed::of`]). crun's
/// `rsync` and its kin name flags of filesystems, each of which a tree of new mounts has one of: they are `sync` there, and nothing
/// for a bind mount, whose filesystem is mounted already. "acl" is missing on purpose: ext4 takes it as its own option,
/// and there is no mount flag that means it.
fn word(option: &str) -> Option<Word> {
    use Word::*;
    Some(match option {
        "async" => Clear(MS_SYNCHRONOUS),
        "atime" => Clear(MS_NOATIME),
        "bind" => Bind(false),
        "defaults" => Nothing,
        "dev" => Clear(MS_NODEV),
        "diratime" => Clear(MS_NODIRATIME),
        "dirsync" => Set(MS_DIRSYNC),
        "exec" => Clear(MS_NOEXEC),
        "iversion" => Set(MS_I_VERSION),
        "lazytime" => Set(MS_LAZYTIME),
        "loud" => Clear(MS_SILENT),
        "mand" => Set(MS_MANDLOCK),
        "noatime" => Set(MS_NOATIME),
        "nodev" => Set(MS_NODEV),
        "nodiratime" => Set(MS_NODIRATIME),
        "noexec" => Set(MS_NOEXEC),
        "noiversion" => Clear(MS_I_VERSION),
        "nolazytime" => Clear(MS_LAZYTIME),
        "nomand" => Clear(MS_MANDLOCK),
        "norelatime" => Clear(MS_RELATIME),
        "nostrictatime" => Clear(MS_STRICTATIME),
        "nosuid" => Set(MS_NOSUID),
        "nosymfollow" => Set(MS_NOSYMFOLLOW),
        "rbind" => Bind(true),
        "relatime" => Set(MS_RELATIME),
        "remount" => Remount,
        "ro" => Set(MS_RDONLY),
        "rw" => Clear(MS_RDONLY),
        "silent" => Set(MS_SILENT),
        "strictatime" => Set(MS_STRICTATIME),
        "suid" => Clear(MS_NOSUID),
        "sync" => Set(MS_SYNCHRONOUS),
        "symfollow" => Clear(MS_NOSYMFOLLOW),
        "tmpcopyup" => CopyUp,
        "idmap" => Idmap(false),
        "ridmap" => Idmap(true),
        "rro" => SetAll(ATTR_RDONLY),
        "rrw" => ClearAll(ATTR_RDONLY),
        "rnosuid" => SetAll(ATTR_NOSUID),
        "rsuid" => ClearAll(ATTR_NOSUID),
        "rnodev" => SetAll(ATTR_NODEV),
        "rdev" => ClearAll(ATTR_NODEV),
        "rnoexec" => SetAll(ATTR_NOEXEC),
        "rexec" => ClearAll(ATTR_NOEXEC),
        "rnodiratime" => SetAll(ATTR_NODIRATIME),
        "rdiratime" => ClearAll(ATTR_NODIRATIME),
        "rrelatime" => SetAll(ATTR_RELATIME),
        // There is no "not relatime" among the times of access. With runc and youki whatever takes one away leaves relatime, also
        // in a tree with strictatime.
        "rnorelatime" => ClearAll(ATTR_RELATIME),
        "rnoatime" => SetAll(ATTR_NOATIME),
        "ratime" => ClearAll(ATTR_NOATIME),
        "rstrictatime" => SetAll(ATTR_STRICTATIME),
        "rnostrictatime" => ClearAll(ATTR_STRICTATIME),
        "rnosymfollow" => SetAll(ATTR_NOSYMFOLLOW),
        "rsymfollow" => ClearAll(ATTR_NOSYMFOLLOW),
        "copy-symlink" => CopyLink,
        "src-nofollow" => SourceItself,
        "dest-nofollow" => OverLink,
        "rsync" => SetOfFilesystem(MS_SYNCHRONOUS),
        "rasync" => ClearOfFilesystem(MS_SYNCHRONOUS),
        "rdirsync" => SetOfFilesystem(MS_DIRSYNC),
        "rmand" => SetOfFilesystem(MS_MANDLOCK),
        "rnomand" => ClearOfFilesystem(MS_MANDLOCK),
        other => {
            let how = propagation(other)?;
            Propagation(how.flag, how.recursive)
        }
    })
}

/// A word of propagation, as in options and in `rootfsPropagation`.
pub(crate) fn propagation(word: &str) -> Option<Propagation> {
    let (recursive, flag) = match word {
        "private" => (false, MS_PRIVATE),
        "rprivate" => (true, MS_PRIVATE),
        "shared" => (false, MS_SHARED),
        "rshared" => (true, MS_SHARED),
        "slave" => (false, MS_SLAVE),
        "rslave" => (true, MS_SLAVE),
        "unbindable" => (false, MS_UNBINDABLE),
        "runbindable" => (true, MS_UNBINDABLE),
        _ => return None,
    };
    Some(Propagation { flag, recursive })
}

/// The options of one entry.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parsed {
    set: u64,
    cleared: u64,
    pub propagation: Vec<Propagation>,
    pub recursive: Attributes,
    /// Options of the filesystem itself.
    pub data: Vec<FsOption>,
    pub bind: bool,
    pub rbind: bool,
    pub remount: bool,
    pub copy_up: bool,
    /// `Some(true)` for the whole tree.
    pub idmap: Option<bool>,
    /// The place among the options of one that names its ids itself (`idmap=uids=…;gids=…`), and what it says.
    pub idmap_text: Option<(usize, String)>,
    /// `copy-symlink`
    pub copy_link: bool,
    /// `src-nofollow`
    pub source_itself: bool,
    /// `dest-nofollow`
    pub over_link: bool,
    of_filesystem: u64,
}

impl Parsed {
    pub fn of(options: &[String]) -> Parsed {
        let mut parsed = Parsed::default();
        for (at, option) in options.iter().enumerate() {
            match word(option) {
                Some(word) => parsed.apply(word),
                None if !parsed.names_ids(option, at) => filesystem_options(option, &mut parsed.data),
                None => {}
            }
        }
        parsed
    }

    /// `idmap=` and `ridmap=`, with what comes behind; with nothing behind they are `idmap` and `ridmap`.
    fn names_ids(&mut self, option: &str, at: usize) -> bool {
        let (recursive, text) = match (option.strip_prefix("idmap="), option.strip_prefix("ridmap=")) {
            (Some(text), _) => (false, text),
            (None, Some(text)) => (true, text),
            (None, None) => return false,
        };
        self.idmap = Some(recursive);
        self.idmap_text = (!text.is_empty()).then(|| (at, text.to_owned()));
        true
    }

    fn apply(&mut self, word: Word) {
        match word {
            Word::Set(flag) => {
                self.set |= flag;
                self.cleared &= !flag;
            }
            Word::Clear(flag) => {
                self.set &= !flag;
                self.cleared |= flag;
                self.of_filesystem &= !flag;
            }
            Word::Propagation(flag, recursive) => self.propagation.push(Propagation { flag, recursive }),
            Word::SetAll(attribute) => self.set_all(attribute),
            Word::ClearAll(attribute) => self.clear_all(attribute),
            Word::Bind(recursive) => {
                self.bind = true;
                self.rbind |= recursive;
            }
            Word::Remount => self.remount = true,
            Word::CopyUp => self.copy_up = true,
            Word::Idmap(recursive) => self.idmap = Some(recursive),
            Word::CopyLink => self.copy_link = true,
            Word::SourceItself => self.source_itself = true,
            Word::OverLink => self.over_link = true,
            Word::SetOfFilesystem(flag) => self.of_filesystem |= flag,
            Word::ClearOfFilesystem(flag) => {
                self.set &= !flag;
                self.of_filesystem &= !flag;
            }
            Word::Nothing => {}
        }
    }

    fn set_all(&mut self, attribute: u64) {
        if attribute & ATTR_ATIME == attribute {
            // mount_setattr(2) wants the whole field cleared when one of its values is set.
            self.recursive.set = self.recursive.set & !ATTR_ATIME | attribute;
            self.recursive.clear |= ATTR_ATIME;
        } else {
            self.recursive.set |= attribute;
            self.recursive.clear &= !attribute;
        }
    }

    fn clear_all(&mut self, attribute: u64) {
        if attribute & ATTR_ATIME == attribute {
            if self.recursive.set & ATTR_ATIME == attribute || self.recursive.clear & ATTR_ATIME == 0 {
                self.set_all(ATTR_RELATIME);
            }
        } else {
            self.recursive.set &= !attribute;
            self.recursive.clear |= attribute;
        }
    }

    pub fn superblock_flags(&self) -> u32 {
        (self.set & SUPERBLOCK | self.of_filesystem) as u32
    }

    /// Attributes of a new mount, which begins with relatime and nothing else.
    pub fn new_attributes(&self) -> Attributes {
        Attributes { set: self.per_mount(self.set) | self.atime(), clear: self.atime_field() }
    }

    /// What a bind mount, or a remount, changes of what it inherits. mount(2) replaces all flags of the mount, but the times of
    /// access only when one of their flags is set: `atime` and `diratime` say nothing to it.
    pub fn bind_attributes(&self, locked: bool) -> Attributes {
        let set = self.per_mount(self.set) | self.atime();
        let mut clear = self.per_mount(self.cleared) & !ATTR_NODIRATIME | self.atime_field();
        if self.set & ATIME_FLAGS != 0 {
            clear |= ATTR_NODIRATIME & !set;
        }
        if (self.set | self.cleared) != 0 {
            clear |= if locked { UNLOCKED } else { UNLOCKED | LOCKABLE } & !set;
        }
        Attributes { set, clear }
    }

    fn per_mount(&self, flags: u64) -> u64 {
        PER_MOUNT
            .iter()
            .filter(|(flag, _)| flags & flag != 0)
            .fold(0, |bits, (_, attribute)| bits | attribute)
    }

    /// mount(2)'s order of precedence: strictatime, noatime, relatime.
    fn atime(&self) -> u64 {
        if self.set & MS_STRICTATIME != 0 {
            ATTR_STRICTATIME
        } else if self.set & MS_NOATIME != 0 {
            ATTR_NOATIME
        } else {
            ATTR_RELATIME
        }
    }

    /// The atime field, if an option sets something in it.
    fn atime_field(&self) -> u64 {
        if self.set & ATIME_FLAGS != 0 { ATTR_ATIME } else { 0 }
    }
}

/// Whether the entry's mount ends read-only: the last of `ro` and `rw` decides.
pub(crate) fn read_only(options: &[String]) -> bool {
    options
        .iter()
        .rev()
        .find(|option| matches!(option.as_str(), "ro" | "rw"))
        .is_some_and(|option| option == "ro")
}

/// `key`, `key=value`, or several of them with commas, as mount(2) takes them. Commas inside double quotes belong to the
/// value (SELinux contexts have them), and the quotes do not.
fn filesystem_options(text: &str, into: &mut Vec<FsOption>) {
    let (mut begin, mut quoted) = (0, false);
    for (at, byte) in text.bytes().chain([b',']).enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted || at == text.len() => {
                if begin < at {
                    into.push(filesystem_option(&text[begin..at]));
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

fn filesystem_option(text: &str) -> FsOption {
    match text.split_once('=') {
        Some((key, value)) => FsOption { key: key.to_owned(), value: Some(unquoted(value).to_owned()) },
        None => FsOption { key: text.to_owned(), value: None },
    }
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}
