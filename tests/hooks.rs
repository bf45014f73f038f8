//! Commands that follow the life of paths, readers and connections (contract §7.3).

use std::{fs, path::Path};

use crate::support::{Camera, CameraPlan, PATIENCE, Rtsp, Server, scratch_dir, wait_for};

/// A hook that writes what it was told into `DIR/NAME`, then stays.
fn recorder(dir: &Path, name: &str, stays: bool) -> String {
    let script = dir.join(format!("{name}.sh"));
    let stay = if stays { "exec sleep 1000" } else { "" };
    let file = dir.join(name);
    let draft = dir.join(format!("{name}.draft"));
    let text = format!(
        "echo $$ > {0}\nenv | grep -E '^(MTX_|RTSP_|G1=|cameraId=)' | sort >> {0}\nmv {0} {1}\n{stay}\n",
        draft.display(),
        file.display()
    );
    fs::write(&script, text).unwrap();
    format!("sh {}", script.display())
}

/// What a hook wrote: its process and its variables.
fn told(dir: &Path, name: &str) -> (u32, Vec<String>) {
    let text = wait_for(&format!("hook {name} runs"), PATIENCE, || fs::read_to_string(dir.join(name)).ok());
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap().parse().unwrap(), lines.collect())
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn hooks_run_with_their_variables_and_end_with_what_they_follow() {
    let dir = scratch_dir("hooks");
    let hook = |name: &str, stays| recorder(&dir, name, stays);
    let globals =
        format!("runOnConnect: {}\nrunOnDisconnect: {}\n", hook("connect", true), hook("disconnect", false));
    let paths = format!(
        "  fixed:\n    runOnInit: {}\n  metro_~cameraId:\n    runOnReady: {}\n    runOnNotReady: {}\n    runOnRead: {}\n    \
         runOnUnread: {}\n",
        hook("init", true),
        hook("ready", true),
        hook("notready", false),
        hook("read", true),
        hook("unread", false),
    );
    let server = Server::with_api(&globals, &paths);
    let (init, variables) = told(&dir, "init");
    assert!(variables.contains(&"MTX_PATH=fixed".to_owned()), "{variables:?}");
    assert!(variables.contains(&format!("RTSP_PORT={}", server.port)), "{variables:?}");

    let camera = Camera::publish(&server, "metro_42", CameraPlan::default());
    camera.wait_frames(2);
    let (connect, variables) = told(&dir, "connect");
    assert!(variables.contains(&"MTX_CONN_TYPE=rtspConn".to_owned()), "{variables:?}");
    let (ready, variables) = told(&dir, "ready");
    for variable in ["MTX_PATH=metro_42", "G1=42", "cameraId=42", "MTX_SOURCE_TYPE=rtspSession"] {
        assert!(variables.contains(&variable.to_owned()), "{variable}: {variables:?}");
    }
    let mut reader = Rtsp::play_tcp(&server, "metro_42");
    let (read, variables) = told(&dir, "read");
    assert!(variables.contains(&"MTX_READER_TYPE=rtspSession".to_owned()), "{variables:?}");
    assert!(!is_gone(ready) && !is_gone(read) && !is_gone(init) && !is_gone(connect));

    reader.teardown();
    told(&dir, "unread");
    wait_for("the read hook ends", PATIENCE, || is_gone(read).then_some(()));
    camera.leave();
    told(&dir, "notready");
    told(&dir, "disconnect");
    wait_for("the ready hook ends", PATIENCE, || is_gone(ready).then_some(()));
    assert!(!is_gone(init));
    server.api("DELETE", "/v3/config/paths/delete/fixed", "").assert_ok();
    wait_for("the init hook ends", PATIENCE, || is_gone(init).then_some(()));
    assert_eq!(zombies(server.pid()), 0);
}

#[test]
fn the_end_of_the_relay_is_the_end_of_its_hooks() {
    let dir = scratch_dir("hooks-end");
    let stubborn = dir.join("stubborn.sh");
    fs::write(
        &stubborn,
        format!("trap '' INT\necho $$ > {}/stubborn\nwhile :; do sleep 1; done\n", dir.display()),
    )
    .unwrap();
    let server = Server::with("", &format!("  fixed:\n    runOnInit: sh {}\n", stubborn.display()));
    let (pid, _) = told(&dir, "stubborn");
    server.signal("-TERM");
    wait_for("the relay ends", PATIENCE, || is_gone_or_zombie(server.pid()).then_some(()));
    wait_for("the hook is gone", PATIENCE, || is_gone(pid).then_some(()));
}

fn status(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 2..].split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_gone_or_zombie(pid: u32) -> bool {
    status(pid).is_none_or(|(state, _)| state == 'Z')
}

fn zombies(parent: u32) -> usize {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|&pid: &u32| status(pid) == Some(('Z', parent))).count()
}
