//! The control API as a Go backend uses it: through a client that is made from the server's own description.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::support::{
    Camera, CameraPlan, PATIENCE, Rtsp, Server, ours_or_say_skipped,
    rtsp::Item,
    scratch_dir,
    server::is_ours,
    tools::{Ended, Tool},
    wait_for,
};

/// Fetching modules and compiling them, on a machine that never did.
const BUILD_MAX: Duration = Duration::from_secs(600);

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api")
}

fn start() -> Server {
    Server::with_api("", "  all_others:\n")
}

fn go(dir: &Path, args: &[&str]) {
    let all = ["-C", dir.to_str().unwrap()].into_iter().chain(args.iter().copied());
    Tool::run("go", all).ended_within(BUILD_MAX).assert_success();
}

/// Makes the client of `description` and builds the program that uses it.
fn build(description: &str) -> PathBuf {
    let dir = scratch_dir("go-client");
    for file in ["go.mod", "go.sum", "main.go", "oapi-codegen.yaml"] {
        fs::copy(sources().join(file), dir.join(file)).unwrap();
    }
    fs::create_dir(dir.join("client")).unwrap();
    fs::write(dir.join("openapi.yaml"), description).unwrap();
    go(&dir, &["tool", "oapi-codegen", "-config", "oapi-codegen.yaml", "openapi.yaml"]);
    go(&dir, &["build", "-o", "api", "."]);
    dir.join("api")
}

#[test]
fn schemathesis_finds_no_server_error_and_no_answer_that_is_not_described() {
    if !ours_or_say_skipped("schemathesis") {
        return;
    }
    let mut server = start();
    let dir = scratch_dir("schemathesis");
    let bin = dir.join("venv/bin");
    let requirements = sources().join("requirements.txt");
    // In a directory of its own: it leaves a cache where it runs.
    let run = |program: &Path, args: &[&str]| {
        let all = [&["-C", dir.to_str().unwrap(), program.to_str().unwrap()], args].concat();
        Tool::run("env", all).ended_within(BUILD_MAX).assert_success();
    };
    run(Path::new("python3"), &["-m", "venv", dir.join("venv").to_str().unwrap()]);
    run(&bin.join("pip"), &["install", "--quiet", "-r", requirements.to_str().unwrap()]);
    let document = format!("http://127.0.0.1:{}/openapi.yaml", server.api_port);
    let fixed = [
        "run",
        document.as_str(),
        "--phases=coverage,fuzzing",
        "--max-examples=30",
        "--seed=1",
        // Not that every request is accepted, nor 405: an unknown method is 404 as in MediaMTX.
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,\
         response_headers_conformance,response_schema_conformance",
        // Has no end.
        "--exclude-path=/v3/events",
    ];
    let st = bin.join("schemathesis");
    run(&st, &[&fixed[..], &["--include-method=GET", "--mode=all"]].concat());
    // What changes something gets only what it must refuse: a valid change may switch the API off, or run a command.
    run(&st, &[&fixed[..], &["--exclude-method=GET", "--mode=negative"]].concat());
    server.assert_alive();
}

#[test]
fn a_generated_go_client_sees_a_path_through_its_life() {
    let server = start();
    let description = match is_ours() {
        true => server.get("/openapi.yaml").body,
        false => fs::read_to_string(sources().join("../../src/control/api/openapi.yaml")).unwrap(),
    };
    let program = build(&description);
    let url = format!("http://127.0.0.1:{}", server.api_port);
    // With a slash: what comes after the last one in a URL is not the whole name.
    let step = |step: &str| -> Ended {
        let args = [url.as_str(), step, "gate/cam1"];
        let later = (!is_ours()).then(|| ("IN_EFFECT_LATER", "1".to_owned()));
        Tool::run_with_env(program.to_str().unwrap(), args, later.as_slice()).ended_within(PATIENCE * 3)
    };
    step("add").assert_success();
    let camera = Camera::publish(&server, "gate/cam1", CameraPlan::default());
    server.wait_live("gate/cam1");
    let mut reader = Rtsp::play_tcp(&server, "gate/cam1");
    let watching = std::thread::scope(|scope| {
        let watching = scope.spawn(|| step("watch"));
        // It reads on until the program kicks it.
        wait_for("the reader is kicked", PATIENCE * 2, || {
            let item = reader.item(std::time::Instant::now() + Duration::from_millis(100));
            matches!(item, Item::Closed).then_some(())
        });
        watching.join().unwrap()
    });
    watching.assert_success();
    assert!(!camera.was_closed(), "only readers were kicked");
    camera.leave();
    step("remove").assert_success();
}
