//! Opening, reading and writing the files of a hierarchy, with errors that name call, path and value.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;

use nix::errno::Errno;

use crate::error::CgroupError;
use crate::place::Dir;

pub(crate) fn join(dir: &str, name: &str) -> String {
    let mut path = String::with_capacity(dir.len() + name.len() + 1);
    path.push_str(dir);
    path.push('/');
    path.push_str(name);
    path
}

/// A file of the directory `dir`, opened for writing.
pub(crate) struct Target {
    file: File,
    path: String,
}

impl Target {
    pub(crate) fn open(dir: &str, name: &str) -> Result<Target, CgroupError> {
        let path = join(dir, name);
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Target { file, path }),
            Err(source) => Err(CgroupError::io("open", path, source)),
        }
    }

    /// One write(2): the kernel takes a value whole or not at all.
    pub(crate) fn write(&mut self, value: &str) -> Result<(), CgroupError> {
        // Linux, cgroup v1: setting a memory limit while a signal is pending gives EINTR. Bounded, so that a storm of
        // signals cannot hold us.
        for _ in 0..100 {
            match self.file.write(value.as_bytes()) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(value, source)),
            }
        }
        Err(self.failed(value, Errno::EINTR.into()))
    }

    /// Each line by itself: keyed files take one entry a write.
    pub(crate) fn write_lines(&mut self, value: &str) -> Result<(), CgroupError> {
        if !value.contains('\n') {
            return self.write(value);
        }
        value.split_inclusive('\n').try_for_each(|line| self.write(line))
    }

    fn failed(&self, value: &str, source: io::Error) -> CgroupError {
        CgroupError::io(format!("write {value:?} to"), self.path.clone(), source)
    }
}

pub(crate) fn write(dir: &str, name: &str, value: &str) -> Result<(), CgroupError> {
    Target::open(dir, name)?.write(value)
}

pub(crate) fn open(dir: &str, name: &str) -> Result<File, CgroupError> {
    let path = join(dir, name);
    File::open(&path).map_err(|source| CgroupError::io("open", path, source))
}

pub(crate) fn read(dir: &str, name: &str) -> Result<String, CgroupError> {
    let mut text = String::new();
    read_into(dir, name, &mut text)?;
    Ok(text)
}

/// Reads a whole file into `text`, which is cleared first.
pub(crate) fn read_into(dir: &str, name: &str, text: &mut String) -> Result<(), CgroupError> {
    text.clear();
    let mut file = open(dir, name)?;
    match read_all(&mut file, text) {
        Ok(()) => Ok(()),
        Err(source) => Err(CgroupError::io("read", join(dir, name), source)),
    }
}

/// Reads an open file again from its beginning.
pub(crate) fn reread(file: &mut File, text: &mut String) -> io::Result<()> {
    text.clear();
    file.rewind()?;
    read_all(file, text)
}

// `File::read_to_string` asks fstat(2) and lseek(2) for a size that these files do not have, and probes for the end
// with a second buffer: five system calls where two do.
fn read_all(file: &mut File, text: &mut String) -> io::Result<()> {
    let mut bytes = std::mem::take(text).into_bytes();
    let mut buffer = [0; 4096];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    *text = String::from_utf8(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(())
}

/// mkdir(2) with mode 0755. `Ok(false)`: it was there.
pub(crate) fn mkdir(path: &str) -> Result<bool, CgroupError> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(CgroupError::io("mkdir", path, source)),
    }
}

/// Makes `dir` and what is missing between it and the mount point; each parent made is added to `parents`.
/// `Ok(false)`: it was there.
pub(crate) fn mkdir_with_parents(dir: &Dir, parents: &mut Vec<String>) -> Result<bool, CgroupError> {
    match mkdir(&dir.path) {
        Err(error) if error.is(Errno::ENOENT) => {}
        result => return result,
    }
    let start = dir.mount_point.trim_end_matches('/').len() + 1;
    for (end, _) in dir.path[start..].match_indices('/') {
        let parent = &dir.path[..start + end];
        if mkdir(parent)? {
            parents.push(parent.to_owned());
        }
    }
    mkdir(&dir.path)
}

/// rmdir(2). `Ok`: it is gone, or was not there.
pub(crate) fn rmdir(path: &str) -> Result<(), CgroupError> {
    match std::fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CgroupError::io("rmdir", path, source)),
    }
}

/// The sub-cgroups of `path`.
pub(crate) fn children(path: &str) -> Result<Vec<String>, CgroupError> {
    let failed = |source| CgroupError::io("read directory", path, source);
    let mut children = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // The kernel reports the type, so this asks for nothing more.
        if entry.file_type().map_err(failed)?.is_dir() {
            match entry.file_name().into_string() {
                Ok(name) => children.push(join(path, &name)),
                Err(name) => {
                    let reason = format!("the name of sub-cgroup {name:?} is not UTF-8");
                    return Err(CgroupError::Malformed { path: path.to_owned(), reason });
                }
            }
        }
    }
    Ok(children)
}
