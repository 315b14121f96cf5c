//! The files of the configuration in force, which a restart begins with: written off the core's lock, one
//! configuration at a time and the newest last, each file whole or not at all.
//!
//! No checkpoint of the tree contains a configuration that was not written before: the log still has its
//! transaction otherwise, and a server that starts finds it there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::sleep;
use zk_config::ServerConfig;
use zk_proto::ServerId;

use super::InForce;
use crate::context::Context;
use crate::quorum::server_id;

/// When files that could not be written are tried again.
const RETRY: Duration = Duration::from_secs(30);

/// The files of one server.
#[derive(Debug)]
pub(crate) struct ConfigFiles {
    /// None: the settings came from elsewhere, or no configuration is to be kept.
    zoo_cfg: Option<PathBuf>,
    own: Option<ServerId>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The version that a restart begins with.
    written: i64,
    /// The one that could not be written.
    failed: Option<i64>,
}

impl ConfigFiles {
    /// `version` is that of the files as they are.
    pub(super) fn new(config: &ServerConfig, version: i64) -> Self {
        let zoo_cfg = config.config_file.clone().filter(|_| config.ensemble.reconfig_enabled);
        let own = config.member_id().map(server_id);
        if config.ensemble.reconfig_enabled && own.is_some() && zoo_cfg.is_none() {
            tracing::warn!(
                "reconfigEnabled=true, but there is no zoo.cfg: after a reconfiguration a restart begins with the members that the arguments name. Start the server with a file to keep them"
            );
        }
        Self { zoo_cfg, own, state: Mutex::new(State { written: version, failed: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics: a panic ends the process")
    }

    /// Writes what is in force unless that was done, or tried in vain.
    pub(super) fn write(&self, in_force: &InForce) {
        let mut state = self.state();
        if state.failed != Some(in_force.members.version) {
            self.write_locked(&mut state, in_force);
        }
    }

    /// As [`Self::write`], also what failed before; whether nothing is left to write.
    fn try_again(&self, in_force: &InForce) -> bool {
        let mut state = self.state();
        self.write_locked(&mut state, in_force);
        state.failed.is_none()
    }

    fn write_locked(&self, state: &mut State, in_force: &InForce) {
        let version = in_force.members.version;
        let Some(zoo_cfg) = &self.zoo_cfg else { return };
        // A server that waits to be added keeps the file that lets it: a restart would be refused with
        // members that it is not among. One that was removed must not come back with those of before.
        let waits =
            || state.written == 0 && self.own.is_some_and(|own| in_force.member(own).is_none());
        if version <= state.written || waits() {
            return;
        }
        let dynamic = zk_config::dynamic_file_path(zoo_cfg, version);
        match write_both(zoo_cfg, &dynamic, in_force, self.own) {
            Ok(()) => {
                tracing::info!(file = %dynamic.display(), "the configuration in force was written");
                *state = State { written: version, failed: None };
                remove_next(zoo_cfg, version);
            }
            Err((path, error)) => {
                if state.failed.replace(version) != Some(version) {
                    tracing::error!(
                        file = %path.display(), version = format_args!("{version:x}"), %error,
                        "the configuration in force cannot be written: after a restart this server begins with that of version {:x}, until it meets others. Let it write into the folder of {} (a file that is mounted alone, or read-only, cannot be replaced); it is tried again every {} s",
                        state.written, zoo_cfg.display(), RETRY.as_secs()
                    );
                }
            }
        }
    }
}

/// Writes each configuration that comes into force.
pub(crate) async fn keep_written(context: Arc<Context>) {
    let mut changes = context.membership.changes();
    changes.mark_changed(); // one that came before this task did
    let mut retry = false;
    loop {
        if retry {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sleep(RETRY) => {}
            }
        } else if changes.changed().await.is_err() {
            return;
        }
        let in_force = Arc::clone(&changes.borrow_and_update());
        let writing = Arc::clone(&context);
        let write = move || writing.membership.files.try_again(&in_force);
        retry = !tokio::task::spawn_blocking(write).await.unwrap_or(true);
    }
}

/// Keeps a `zoo.cfg` that has the members in itself as it is (`QuorumPeerConfig.backupOldConfig`): it is
/// about to be edited.
pub(crate) fn back_up(config: &ServerConfig) {
    let ensemble = &config.ensemble;
    let Some(zoo_cfg) = &config.config_file else { return };
    if !ensemble.reconfig_enabled
        || !ensemble.is_distributed()
        || ensemble.dynamic_config_file.is_some()
    {
        return;
    }
    let backup = zk_config::backup_file_path(zoo_cfg);
    let written = fs::read(zoo_cfg).and_then(|text| replace(&backup, &text, Some(zoo_cfg)));
    if let Err(error) = written {
        tracing::warn!(
            file = %backup.display(), %error,
            "zoo.cfg, which a reconfiguration edits, cannot be kept as it is; let the server write into its folder"
        );
    }
}

/// Both files: the one with the members, then the one that names it. The error names the file.
fn write_both(
    zoo_cfg: &Path,
    dynamic: &Path,
    in_force: &InForce,
    own: Option<ServerId>,
) -> Result<(), (PathBuf, io::Error)> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let text = zk_config::dynamic_file_text(&in_force.members.text);
    replace(dynamic, text.as_bytes(), None).map_err(of(dynamic))?;
    // A name that does not depend on where the server is started.
    let dynamic = fs::canonicalize(dynamic).map_err(of(dynamic))?;
    // A link stays one.
    let target = fs::canonicalize(zoo_cfg).map_err(of(zoo_cfg))?;
    let bytes = fs::read(&target).map_err(of(&target))?;
    let own = own.and_then(|own| in_force.member(own));
    let edited = match String::from_utf8(bytes) {
        Ok(text) => zk_config::edit_static_file(&text, &dynamic, own).into_bytes(),
        // ISO-8859-1, as Java's properties are.
        Err(error) => {
            let text: String = error.into_bytes().into_iter().map(char::from).collect();
            let edited = zk_config::edit_static_file(&text, &dynamic, own);
            edited.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
        }
    };
    replace(&target, &edited, Some(&target)).map_err(of(&target))
}

/// Puts a file into place in one step, with the rights of `like`: `zoo.cfg` may hold passwords.
fn replace(path: &Path, content: &[u8], like: Option<&Path>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let mode = match like {
        Some(like) => fs::metadata(like)?.permissions().mode(),
        None => 0o644,
    };
    // What an interrupted attempt has left may have other rights.
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let put = (|| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    if put.is_err() {
        drop(fs::remove_file(&temporary)); // the first error is the one to tell of
    }
    put
}

/// Upstream's file of a proposal that this configuration has taken the place of. A later one is kept: it is
/// not this server's.
fn remove_next(zoo_cfg: &Path, version: i64) {
    let next = zk_config::next_dynamic_file_path(zoo_cfg);
    let Ok(text) = fs::read_to_string(&next) else { return };
    let proposed = text.lines().find_map(|line| line.trim().strip_prefix("version="));
    let proposed = proposed.and_then(|proposed| i64::from_str_radix(proposed, 16).ok());
    if proposed.is_none_or(|proposed| proposed <= version)
        && let Err(error) = fs::remove_file(&next)
    {
        tracing::warn!(file = %next.display(), %error, "a proposal of the past cannot be removed; nothing reads it here");
    }
}

#[cfg(test)]
mod tests {
    use zk_config::{Loaded, Sources};
    use zk_zab::Members;

    use super::*;

    const SERVERS: &str = "server.1=127.0.0.1:1:2:participant;0.0.0.0:2181\n\
                           server.2=127.0.0.1:3:4:participant\nserver.3=127.0.0.1:5:6:participant\n";

    struct Place {
        folder: tempfile::TempDir,
    }

    impl Place {
        fn new(zoo_cfg: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("data")).unwrap();
            fs::write(folder.path().join("data/myid"), "1").unwrap();
            let place = Self { folder };
            let data = place.path("data");
            let text = format!("dataDir={}\ninitLimit=5\nsyncLimit=5\n{zoo_cfg}", data.display());
            fs::write(place.path("zoo.cfg"), text).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }

        fn load(&self) -> ServerConfig {
            let loaded: Loaded = Sources::new().load_file(&self.path("zoo.cfg"));
            loaded.accept(false).map_err(|wrong| wrong.render()).unwrap().0
        }

        fn files(&self) -> ConfigFiles {
            let config = self.load();
            let version = i64::try_from(config.ensemble.version).unwrap();
            ConfigFiles::new(&config, version)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    fn in_force(servers: &str, version: i64) -> InForce {
        InForce::new(Members::from_text(&format!("{servers}version={version:x}")))
    }

    #[test]
    fn a_restart_begins_with_what_was_written() {
        let place =
            Place::new(&format!("# mine\nreconfigEnabled=true\nclientPort=2181\n{SERVERS}"));
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(place.path("zoo.cfg"), mode).unwrap();
        let before = place.read("zoo.cfg");
        back_up(&place.load());
        assert_eq!(place.read("zoo.cfg.bak"), before);
        fs::write(place.path("zoo.cfg.dynamic.next"), format!("{SERVERS}version=a")).unwrap();
        let files = place.files();
        files.write(&in_force(SERVERS, 10));
        assert_eq!(place.read("zoo.cfg.dynamic.a"), SERVERS.trim_end());
        assert!(!place.path("zoo.cfg.dynamic.next").exists());
        let text = place.read("zoo.cfg");
        assert!(text.contains("# mine\n") && !text.contains("server."), "{text}");
        assert!(!text.contains("clientPort"), "{text}");
        for private in ["zoo.cfg", "zoo.cfg.bak"] {
            let mode = fs::metadata(place.path(private)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{private}");
        }
        let config = place.load();
        assert_eq!((config.ensemble.version, config.ensemble.text()), (10, SERVERS.to_owned()));
        // The newest counts, and what is older comes too late.
        let two = SERVERS.replace("server.3=127.0.0.1:5:6:participant\n", "");
        files.write(&in_force(&two, 12));
        files.write(&in_force(SERVERS, 11));
        assert_eq!(place.load().ensemble.members.len(), 2);
        // Nothing is a first start any more.
        fs::remove_file(place.path("zoo.cfg.bak")).unwrap();
        back_up(&place.load());
        assert_eq!(place.names(), ["data", "zoo.cfg", "zoo.cfg.dynamic.a", "zoo.cfg.dynamic.c"]);
    }

    #[test]
    fn nothing_is_written_where_nothing_may_change() {
        let place = Place::new(&format!("clientPort=2181\n{SERVERS}"));
        back_up(&place.load());
        place.files().write(&in_force(SERVERS, 10));
        assert_eq!(place.names(), ["data", "zoo.cfg"]);
    }

    #[test]
    fn who_waits_to_be_added_keeps_its_file_and_who_is_removed_does_not() {
        let others = SERVERS.split_inclusive('\n').skip(1).collect::<String>();
        let place = Place::new(&format!("reconfigEnabled=true\nclientPort=2181\n{SERVERS}"));
        let files = place.files();
        files.write(&in_force(&others, 10));
        assert_eq!(place.names(), ["data", "zoo.cfg"]);
        files.write(&in_force(SERVERS, 11));
        files.write(&in_force(&others, 12));
        assert_eq!(place.read("zoo.cfg.dynamic.c"), others.trim_end());
        let refused = Sources::new().load_file(&place.path("zoo.cfg")).accept(false).unwrap_err();
        assert!(refused.render().contains("add its line to"), "{}", refused.render());
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let place = Place::new(&format!("reconfigEnabled=true\nclientPort=2181\n{SERVERS}"));
        let files = place.files();
        // In the way, whoever runs this.
        fs::create_dir_all(place.path("zoo.cfg.dynamic.a/x")).unwrap();
        files.write(&in_force(SERVERS, 10));
        assert_eq!(files.state().failed, Some(10));
        assert!(!files.try_again(&in_force(SERVERS, 10)));
        fs::remove_dir_all(place.path("zoo.cfg.dynamic.a")).unwrap();
        files.write(&in_force(SERVERS, 10));
        assert!(!place.path("zoo.cfg.dynamic.a").exists(), "that is for whoever tries again");
        assert!(files.try_again(&in_force(SERVERS, 10)));
        assert_eq!(place.load().ensemble.version, 10);
        assert!(place.names().iter().all(|name| !name.ends_with(".tmp")));
    }

    #[test]
    fn a_link_stays_a_link() {
        let place = Place::new(&format!("reconfigEnabled=true\nclientPort=2181\n{SERVERS}"));
        fs::rename(place.path("zoo.cfg"), place.path("real.cfg")).unwrap();
        std::os::unix::fs::symlink("real.cfg", place.path("zoo.cfg")).unwrap();
        // Latin-1, which is no UTF-8.
        let mut bytes = fs::read(place.path("real.cfg")).unwrap();
        bytes.extend_from_slice(b"# caf\xe9\n");
        fs::write(place.path("real.cfg"), bytes).unwrap();
        place.files().write(&in_force(SERVERS, 10));
        assert!(fs::symlink_metadata(place.path("zoo.cfg")).unwrap().is_symlink());
        let bytes = fs::read(place.path("real.cfg")).unwrap();
        assert!(bytes.windows(6).any(|window| window == b"caf\xe9\nd"), "as it was");
        assert_eq!(place.load().ensemble.version, 10);
    }
}
