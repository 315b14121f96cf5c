//! A small file system that a test can fill.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What is on it: little above what a server keeps free.
const BYTES: u64 = 320 << 20;

/// A file system in memory, in a mount namespace that a process holds open.
pub(crate) struct SmallDisk {
    holder: Child,
    folder: TempDir,
}

impl SmallDisk {
    /// `None`, with the reason printed, where mounting is not allowed.
    pub(crate) fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o size=$1 paddock-test $0 && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).arg(folder.path()).arg(BYTES.to_string());
        let spawned =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut holder) = spawned else {
            eprintln!("skipped: there is no unshare");
            return None;
        };
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            eprintln!("skipped: a file system cannot be mounted in a namespace without root");
            holder.wait().unwrap();
            return None;
        }
        Some(Self { holder, folder })
    }

    /// Its folder, for those who run where it is mounted.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where it is seen from here.
    pub(crate) fn path(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.id());
        Path::new(&root).join(self.folder.path().strip_prefix("/").unwrap())
    }

    /// What runs a command where it is mounted.
    pub(crate) fn enter(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-m"].map(str::to_owned).to_vec()
    }

    /// Writes so many bytes that are in the way, or as many as fit.
    pub(crate) fn fill(&self, len: u64) {
        let mut file = File::create(self.path().join("filler")).unwrap();
        drop(std::io::copy(&mut std::io::repeat(1).take(len), &mut file));
        drop(file.flush());
    }

    /// Leaves so many bytes of it.
    pub(crate) fn leave(&self, left: u64) {
        let stat = rustix::fs::statvfs(self.path().as_path()).unwrap();
        self.fill((stat.f_bavail * stat.f_frsize).saturating_sub(left));
    }

    /// Takes away what is in the way.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
