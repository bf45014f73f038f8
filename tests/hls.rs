//! HLS as viewers meet it: what they are answered, and when.

use std::{
    io::Write,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    PATIENCE, Server,
    hls::{Fetched, Viewer, fetch, fetch_with, receive, send, tag, uris},
    llhls_validator, media, ours_or_say_skipped, scratch_dir,
    server::{API, HLS},
    tools::{Tool, ffmpeg},
    wait_for,
};

/// Publishes a clip again and again, until it is dropped.
fn publish(server: &Server, path: &str, file: &Path) -> Tool {
    let (file, url) = (file.to_str().unwrap(), server.url(path));
    let options = ["-re", "-stream_loop", "-1", "-i", file, "-c", "copy", "-f", "rtsp"];
    ffmpeg(&[&options[..], &["-rtsp_transport", "tcp", &url]].concat())
}

fn hls_url(server: &Server, path: &str) -> String {
    format!("http://127.0.0.1:{}/{path}/index.m3u8", server.hls_port)
}

/// Pictures that ffmpeg decodes of some seconds of a URL; it must find nothing wrong.
#[track_caller]
fn decoded_pictures(url: &str, seconds: &str) -> u64 {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "warning", "-i", url, "-t", seconds])
        .args(["-map", "0", "-f", "null", "-progress", "pipe:1", "-"])
        .output()
        .unwrap();
    let (progress, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let frames = progress.lines().rev().find_map(|line| line.strip_prefix("frame="));
    frames.and_then(|frames| frames.trim().parse().ok()).unwrap_or_else(|| panic!("{progress} {said}"))
}

#[track_caller]
fn assert_error(answer: &Fetched, status: u16, error: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (status, error));
}

/// The counter of playlists that were written out.
fn rendered(server: &Server) -> u64 {
    let page = server.metrics("/metrics").body;
    let line = page.lines().find(|line| line.starts_with("corecast_hls_playlists_rendered_total"));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap()
}

#[test]
fn ffmpeg_plays_each_variant() {
    for (variant, clip) in
        [("lowLatency", media::h264_aac()), ("fmp4", media::h265_opus()), ("mpegts", media::h264_aac())]
    {
        let server = Server::with(&format!("{HLS}hlsVariant: {variant}\n"), "  all_others:\n");
        let _camera = publish(&server, "site/cam", &clip.file);
        Viewer::begin(&server, "site/cam");
        let pictures = decoded_pictures(&hls_url(&server, "site/cam"), "4");
        assert!((90..=110).contains(&pictures), "{variant}: {pictures} pictures");
    }
}

#[test]
fn each_variant_keeps_the_rules() {
    if !ours_or_say_skipped("each_variant_keeps_the_rules") {
        return;
    }
    for variant in ["lowLatency", "fmp4", "mpegts"] {
        let server = Server::with(&format!("{HLS}hlsVariant: {variant}\n"), "  all_others:\n");
        let _camera = publish(&server, "cam", &media::h264_aac().file);
        Viewer::begin(&server, "cam");
        llhls_validator::assert_keeps_rules(&hls_url(&server, "cam"), Duration::from_secs(12));
    }
}

#[test]
fn what_cannot_be_had_is_refused_as_mediamtx_does() {
    let paths = "  cam:\n  od:\n    runOnDemand: sleep 100\n    runOnDemandStartTimeout: 1s\n";
    let server = Server::with(HLS, paths);
    let ask = |target: &str| fetch(&server, target);
    assert_error(&ask("/nope/index.m3u8"), 500, "path 'nope' is not configured");
    assert_error(&ask("/nope/"), 500, "path 'nope' is not configured");
    assert_error(
        &ask("/a/../b/index.m3u8"),
        500,
        "invalid path name: can't contain dot path segments (a/../b)",
    );
    assert_error(&ask("/cam/index.m3u8"), 404, "no stream is available on path 'cam'");
    assert_error(&ask("/cam/video1_stream.m3u8"), 404, "no stream is available on path 'cam'");
    assert_error(&ask("/cam/x.mp4"), 404, "no stream is available on path 'cam'");
    assert_error(&ask("/od/index.m3u8"), 500, "source of path 'od' has timed out");
    let page = ask("/cam/?controls=no");
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(page.text().contains("hls.min.js"));
    let library = ask("/cam/hls.min.js");
    assert!(library.header("content-type").is_some_and(|kind| kind.contains("javascript")));
    assert!(library.text().len() > 100_000);

    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    assert_eq!(viewer.get("x.mp4").status, 404);
    assert_eq!(viewer.get("video9_stream.m3u8").status, 404);
    assert_eq!(fetch(&server, "/cam/~00000000000000000000000000000000/video1_stream.m3u8").status, 404);
    assert_eq!(fetch(&server, "/cam/~/video1_stream.m3u8").status, 404);
    for directives in ["?_HLS_msn=x", "?_HLS_part=1", "?_HLS_msn=1000", "?_HLS_msn=-1", "?_HLS_msn="] {
        assert_eq!(viewer.playlist(directives).status, 400, "{directives}");
    }
    for odd in ["?_HLS_skip=maybe", "?&&&=", "?a=%00%zz", "?_HLS_msn=0"] {
        assert_eq!(viewer.playlist(odd).status, 200, "{odd}");
    }
}

#[test]
fn playlists_wait_for_what_is_asked_for_and_hints_are_kept() {
    let server = Server::with(HLS, "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    let full = viewer.playlist("");
    assert_eq!(full.header("content-type"), Some("application/vnd.apple.mpegurl"));
    assert_eq!(full.header("cache-control"), Some("private, no-cache"));
    let mut text = full.text().to_owned();
    for _ in 0..12 {
        let (msn, part) = Viewer::position(&text);
        // A part that lies ahead of the end of its segment is the first of the next one.
        let next = viewer.playlist(&format!("?_HLS_msn={msn}&_HLS_part={part}"));
        let position = Viewer::position(next.text());
        assert!(position > (msn, part), "{position:?} after {:?}", (msn, part));
        next.text().clone_into(&mut text);
    }
    let hint = text.lines().find(|line| line.starts_with("#EXT-X-PRELOAD-HINT")).unwrap();
    let name = uris(hint).remove(0);
    let part = viewer.get(&name);
    assert_eq!((part.status, part.header("content-type")), (200, Some("video/mp4")));
    assert_eq!(part.body, viewer.get(&name).body);
    let text = viewer.playlist("").text().to_owned();
    assert!(text.contains(&name), "{name} was hinted and came: {text}");
    // Everything that is listed is there.
    let media = uris(&text);
    let listed = &media[..media.iter().position(|uri| !uri.contains("video1")).unwrap_or(media.len()) - 1];
    for uri in listed {
        assert_eq!(viewer.get(uri).status, 200, "{uri}");
    }
    let gzipped = fetch_with(&server, &viewer.url(&viewer.playlist), &[("Accept-Encoding", "gzip")]);
    assert_eq!((gzipped.status, gzipped.header("content-encoding")), (200, Some("gzip")));
    assert!(gzipped.body.starts_with(&[0x1f, 0x8b]));
    let range = fetch_with(&server, &viewer.url(&name), &[("Range", "bytes=0-9")]);
    assert_eq!((range.status, range.body.as_slice()), (206, &part.body[..10]));
}

#[test]
fn a_cold_muxer_answers_from_the_pictures_that_are_there() {
    if !ours_or_say_skipped("a_cold_muxer_answers_from_the_pictures_that_are_there") {
        return;
    }
    let server = Server::with(HLS, "  all_others:\n");
    // A key picture each ten seconds.
    let _camera = publish(&server, "cam", &media::h264_long_gop().file);
    wait_for("the stream", PATIENCE, || server.log_text().contains("is available").then_some(()));
    thread::sleep(Duration::from_secs(3));
    let index = fetch(&server, "/cam/index.m3u8");
    assert!(index.text().contains("video1_stream.m3u8"));
    assert!(index.took < Duration::from_secs(2), "{:?}", index.took);
}

#[test]
fn a_viewer_may_come_without_a_session() {
    if !ours_or_say_skipped("a_viewer_may_come_without_a_session") {
        return;
    }
    let server = Server::with(&format!("{API}{HLS}"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    wait_for("the stream", PATIENCE, || server.log_text().contains("is available").then_some(()));
    for target in ["/cam/video1_stream.m3u8", "/cam/main_stream.m3u8"] {
        let playlist = fetch(&server, target);
        let segment = uris(playlist.text()).into_iter().find(|uri| uri.contains("init")).unwrap();
        assert_eq!(fetch(&server, &format!("/cam/{segment}")).status, 200);
    }
    let sessions = server.get("/v3/hlssessions/list").json();
    assert_eq!(sessions["itemCount"], 1, "{sessions}");
}

#[test]
fn credentials_are_asked_for_once_and_the_session_is_the_permission() {
    let users = "authInternalUsers:\n- user: any\n  permissions:\n  - action: publish\n\
                 - user: viewer\n  pass: secret\n  permissions:\n  - action: read\n";
    let server = Server::with(&format!("{HLS}{users}"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    wait_for("the stream", PATIENCE, || server.log_text().contains("is available").then_some(()));
    for target in ["/cam/index.m3u8", "/cam/", "/cam/video1_stream.m3u8", "/none/index.m3u8"] {
        let refused = fetch(&server, target);
        assert_error(&refused, 401, "authentication error");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"mediamtx\""), "{target}");
    }
    let wrong = fetch_with(&server, "/cam/index.m3u8", &[("Authorization", "Basic dmlld2VyOndyb25n")]);
    assert_error(&wrong, 401, "authentication error");
    assert_eq!(wrong.header("www-authenticate"), None);
    let right = [("Authorization", "Basic dmlld2VyOnNlY3JldA==")];
    assert_eq!(fetch_with(&server, "/cam/", &right).status, 200);
    let index = fetch_with(&server, "/cam/index.m3u8", &right);
    let video = uris(index.text()).into_iter().find(|uri| uri.contains("video1")).unwrap();
    let playlist = fetch(&server, &format!("/cam/{video}"));
    let directory = video.rsplit_once('/').unwrap().0;
    let init = uris(playlist.text()).into_iter().find(|uri| uri.contains("init")).unwrap();
    assert_eq!(fetch(&server, &format!("/cam/{directory}/{init}")).status, 200);
    // Its files alone are not to be had without it, nor is another path with it.
    assert_eq!(fetch(&server, &format!("/cam/{init}")).status, 401);
    assert_eq!(fetch(&server, &format!("/other/{video}")).status, 404);
    // Who has no session shows credentials each time.
    let (target, since) = ("/cam/video1_stream.m3u8", Instant::now());
    for _ in 0..3 {
        assert_eq!(fetch_with(&server, target, &right).status, 200);
    }
    assert!(since.elapsed() < PATIENCE);
}

#[test]
fn who_is_kicked_is_out_and_may_begin_anew() {
    let server = Server::with(&format!("{API}{HLS}"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    let (msn, _) = Viewer::position(viewer.playlist("").text());
    let since = Instant::now();
    let held = send(&server, &viewer.url(&format!("{}?_HLS_msn={}", viewer.playlist, msn + 1)), &[]);
    wait_for("the request arrives", PATIENCE, || {
        (since.elapsed() > Duration::from_millis(100)).then_some(())
    });
    let id = server.get("/v3/hlssessions/list").json()["items"][0]["id"].as_str().unwrap().to_owned();
    server.api("POST", &format!("/v3/hlssessions/kick/{id}"), "").assert_ok();
    assert_eq!(receive(held, since).status, 404);
    assert_eq!(viewer.playlist("").status, 404);
    Viewer::begin(&server, "cam");
}

#[test]
fn only_so_many_may_watch() {
    let server = Server::with(HLS, "  all_others:\n    maxReaders: 1\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    let refused = fetch(&server, "/cam/index.m3u8");
    assert_error(&refused, 503, "path 'cam': maximum reader count reached");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(viewer.playlist("").status, 200);
}

#[test]
fn two_hundred_who_wait_cost_one_playlist_and_are_answered_together() {
    let server = Server::with(&format!("{API}{HLS}hlsPartDuration: 500ms\n"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    wait_for("a whole segment", PATIENCE, || {
        (Viewer::position(viewer.playlist("").text()).0 >= 1).then_some(())
    });
    let (msn, _) = Viewer::position(viewer.playlist("").text());
    let target = viewer.url(&format!("{}?_HLS_msn={msn}", viewer.playlist));
    let since = Instant::now();
    let held: Vec<_> = (0..200).map(|_| send(&server, &target, &[])).collect();
    let answers: Vec<_> = held.into_iter().map(|socket| receive(socket, since)).collect();
    for answer in &answers {
        assert_eq!((answer.status, &answer.body), (200, &answers[0].body));
    }
    // Two parts a second and rendition at most, whoever asks; the counter is shown once a second.
    let spent = since.elapsed().as_secs() + 2;
    thread::sleep(Duration::from_millis(1500));
    let count = rendered(&server);
    assert!(count < 200, "{count} playlists rendered within {spent} s");
}

#[test]
fn a_client_that_takes_nothing_or_leaves_harms_nobody() {
    let server = Server::with(&format!("{HLS}writeTimeout: 2s\n"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    let (msn, _) = Viewer::position(viewer.playlist("").text());
    let blocked = viewer.url(&format!("{}?_HLS_msn={}", viewer.playlist, msn + 1));
    let leaving: Vec<_> = (0..300).map(|_| send(&server, &blocked, &[])).collect();
    drop(leaving);
    // Asks for everything at once and reads none of it.
    let mut slow = send(&server, &viewer.url(&viewer.playlist), &[]);
    let playlist = viewer.playlist("").text().to_owned();
    let segment =
        uris(&playlist).into_iter().find(|uri| uri.contains("_part") || uri.contains("_seg")).unwrap();
    for _ in 0..200 {
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", viewer.url(&segment));
        if slow.write_all(request.as_bytes()).is_err() {
            break;
        }
    }
    for _ in 0..10 {
        let (msn, part) = Viewer::position(viewer.playlist("").text());
        let next = viewer.playlist(&format!("?_HLS_msn={msn}&_HLS_part={part}"));
        assert!(next.took < Duration::from_secs(5), "{:?}", next.took);
        next.text();
    }
}

#[test]
fn a_publisher_that_returns_goes_on_in_the_same_playlist() {
    if !ours_or_say_skipped("a_publisher_that_returns_goes_on_in_the_same_playlist") {
        return;
    }
    let server = Server::with(HLS, "  all_others:\n");
    let camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    let (msn, _) = Viewer::position(viewer.playlist("").text());
    viewer.playlist(&format!("?_HLS_msn={msn}")).text();
    drop(camera);
    wait_for("the stream is gone", PATIENCE, || {
        server.log_text().contains("is not available anymore").then_some(())
    });
    let before = viewer.playlist("").text().to_owned();
    assert!(tag(&before, "DISCONTINUITY").is_none());
    let (msn, part) = Viewer::position(&before);
    let since = Instant::now();
    let held =
        send(&server, &viewer.url(&format!("{}?_HLS_msn={msn}&_HLS_part={part}", viewer.playlist)), &[]);
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    // It is answered with a picture of the new stream, or was let go so that it asks again.
    let answer = receive(held, since);
    assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    let after = wait_for("pictures of the new stream", PATIENCE, || {
        let answer = viewer.playlist("");
        Some(answer.text().to_owned()).filter(|text| text.contains("#EXT-X-DISCONTINUITY\n"))
    });
    assert!(Viewer::position(&after) > (msn, part));
    assert!(server.log_text().contains("[HLS] [muxer cam] goes on with the new stream"));
}

#[test]
fn a_muxer_ends_some_seconds_after_its_stream() {
    if !ours_or_say_skipped("a_muxer_ends_some_seconds_after_its_stream") {
        return;
    }
    let server = Server::with(HLS, "  all_others:\n");
    let camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    drop(camera);
    let gone = wait_for("the end of the muxer", PATIENCE, || {
        Some(viewer.playlist("")).filter(|answer| answer.status == 404)
    });
    assert_eq!(gone.status, 404);
    assert!(server.log_text().contains("[HLS] [muxer cam] destroyed: the stream is gone"));
    assert_error(&fetch(&server, "/cam/index.m3u8"), 404, "no stream is available on path 'cam'");
}

#[test]
fn a_path_on_demand_lasts_as_long_as_somebody_asks() {
    if !ours_or_say_skipped("a_path_on_demand_lasts_as_long_as_somebody_asks") {
        return;
    }
    let dir = scratch_dir("hls-demand");
    let script = format!(
        "exec ffmpeg -loglevel error -re -stream_loop -1 -i {} -c copy -rtsp_transport tcp -f rtsp \
         \"rtsp://127.0.0.1:$RTSP_PORT/$MTX_PATH\"\n",
        media::h264_aac().file.display()
    );
    std::fs::write(dir.join("publish.sh"), script).unwrap();
    let path = format!(
        "  '~^cam_(.+)$':\n    runOnDemand: sh {}/publish.sh\n    runOnDemandStartTimeout: 30s\n    \
         runOnDemandCloseAfter: 1s\n",
        dir.display()
    );
    for cores in ["", "engine:\n  cores: [0, 1]\n"] {
        let server = Server::with(&format!("{HLS}{cores}"), &path);
        let viewer = Viewer::begin(&server, "cam_7");
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(13) {
            let (msn, part) = Viewer::position(viewer.playlist("").text());
            viewer.playlist(&format!("?_HLS_msn={msn}&_HLS_part={part}")).text();
        }
        assert!(!server.log_text().contains("runOnDemand command stopped"), "{}", server.log_text());
        let left = Instant::now();
        wait_for("the end of the command", PATIENCE, || {
            server.log_text().contains("runOnDemand command stopped: not needed by anyone").then_some(())
        });
        // Ten seconds without a request, and the close time: long before the muxer would end.
        assert!(left.elapsed() < Duration::from_secs(30), "{:?}", left.elapsed());
    }
}

#[test]
fn a_command_that_dies_is_brought_back_by_its_viewers() {
    if !ours_or_say_skipped("a_command_that_dies_is_brought_back_by_its_viewers") {
        return;
    }
    let dir = scratch_dir("hls-dies");
    let script = format!(
        "echo $$ > {}/pid\nexec ffmpeg -loglevel error -re -stream_loop -1 -i {} -c copy -rtsp_transport tcp -f rtsp \
         \"rtsp://127.0.0.1:$RTSP_PORT/$MTX_PATH\"\n",
        dir.display(),
        media::h264_aac().file.display()
    );
    std::fs::write(dir.join("publish.sh"), script).unwrap();
    // One that is not run again by itself: only who waits for the stream has it started anew.
    let path = format!(
        "  cam:\n    runOnDemand: sh {}/publish.sh\n    runOnDemandStartTimeout: 30s\n    \
         runOnDemandCloseAfter: 5s\n",
        dir.display()
    );
    let server = Server::with(HLS, &path);
    let viewer = Viewer::begin(&server, "cam");
    let pid = std::fs::read_to_string(dir.join("pid")).unwrap();
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    wait_for("pictures of another command", PATIENCE, || {
        let (msn, part) = Viewer::position(viewer.playlist("").text());
        let next = viewer.playlist(&format!("?_HLS_msn={msn}&_HLS_part={part}"));
        (next.status == 200 && next.text().contains("#EXT-X-DISCONTINUITY\n")).then_some(())
    });
}

#[test]
fn a_path_is_not_given_up_while_its_viewer_is_asked_who_they_are() {
    if !ours_or_say_skipped("a_path_is_not_given_up_while_its_viewer_is_asked_who_they_are") {
        return;
    }
    let users = "authInternalUsers:\n- user: any\n  permissions:\n  - action: publish\n\
                 - user: viewer\n  pass: secret\n  permissions:\n  - action: read\n";
    let command = format!(
        "ffmpeg -loglevel error -re -stream_loop -1 -i {} -c copy -rtsp_transport tcp -f rtsp \
         rtsp://127.0.0.1:$RTSP_PORT/$MTX_PATH",
        media::h264_aac().file.display()
    );
    let path = format!("  all_others:\n    runOnDemand: {command}\n    runOnDemandStartTimeout: 30s\n");
    let server = Server::with(&format!("{HLS}{users}engine:\n  cores: [0, 1]\n"), &path);
    let right = [("Authorization", "Basic dmlld2VyOnNlY3JldA==")];
    for name in ["a", "b", "c", "d"] {
        let target = format!("/{name}/index.m3u8");
        assert_eq!(fetch(&server, &target).status, 401);
        let index = fetch_with(&server, &target, &right);
        assert!(index.text().contains("video1_stream.m3u8"));
    }
}

#[test]
fn it_does_not_matter_on_which_core_a_request_arrives() {
    if !ours_or_say_skipped("it_does_not_matter_on_which_core_a_request_arrives") {
        return;
    }
    let server = Server::with(&format!("{HLS}engine:\n  cores: [0, 1]\n"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    let viewer = Viewer::begin(&server, "cam");
    // Each on a connection of its own, that the kernel puts on either core.
    for _ in 0..20 {
        let (msn, part) = Viewer::position(viewer.playlist("").text());
        viewer.playlist(&format!("?_HLS_msn={msn}&_HLS_part={part}")).text();
    }
    let pictures = decoded_pictures(&hls_url(&server, "cam"), "2");
    assert!((40..=60).contains(&pictures), "{pictures}");
}

#[test]
fn by_cookie_a_viewer_is_known_as_mediamtx_knows_it() {
    let mode = if crate::support::server::is_ours() { "hlsSessionMode: cookie\n" } else { "" };
    let server = Server::with(&format!("{HLS}{mode}"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    wait_for("the stream", PATIENCE, || server.log_text().contains("is available").then_some(()));
    let first = fetch(&server, "/cam/index.m3u8?b=2");
    assert_eq!((first.status, first.header("location")), (302, Some("/cam/index.m3u8?b=2&cookieCheck=1")));
    let cookie = "cookieCheck=1; HttpOnly; Secure; SameSite=None; Partitioned";
    assert_eq!(first.header("set-cookie"), Some(cookie));
    // With the cookie.
    let check = [("Cookie", "cookieCheck=1")];
    let index = fetch_with(&server, "/cam/index.m3u8?b=2&cookieCheck=1", &check);
    assert!(uris(index.text()).iter().all(|uri| uri.ends_with("_stream.m3u8?b=2")), "{}", index.text());
    let set = index.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let video = "/cam/video1_stream.m3u8?b=2";
    let playlist = fetch_with(&server, video, &[("Cookie", &set)]);
    assert!(uris(playlist.text()).iter().all(|uri| uri.ends_with("?b=2")), "{}", playlist.text());
    let part = uris(playlist.text()).into_iter().find(|uri| uri.contains("init")).unwrap();
    assert_eq!(fetch_with(&server, &format!("/cam/{part}"), &[("Cookie", &set)]).status, 200);
    assert_error(&fetch(&server, video), 401, "authentication error");
    assert_error(&fetch_with(&server, video, &[("Cookie", "hlsSession=00")]), 401, "authentication error");
    // Without.
    let index = fetch(&server, "/cam/index.m3u8?cookieCheck=1&b=2");
    assert_eq!(index.header("set-cookie"), None);
    let video = uris(index.text()).into_iter().find(|uri| uri.contains("video1")).unwrap();
    assert!(video.contains("?b=2&session="), "{video}");
    let playlist = fetch(&server, &format!("/cam/{video}&_HLS_skip=YES"));
    for uri in uris(playlist.text()) {
        assert!(uri.contains("?b=2&session=") && !uri.contains("_HLS_skip"), "{uri}");
    }
    let init = uris(playlist.text()).into_iter().find(|uri| uri.contains("init")).unwrap();
    assert_eq!(fetch(&server, &format!("/cam/{init}")).status, 200);
}

#[test]
fn a_content_delivery_network_is_let_in_for_its_secret_and_may_keep_what_it_gets() {
    let server = Server::with(&format!("{API}{HLS}hlsCDNSecret: s3cret\n"), "  all_others:\n");
    let _camera = publish(&server, "cam", &media::h264_aac().file);
    wait_for("the stream", PATIENCE, || server.log_text().contains("is available").then_some(()));
    let get =
        |file: &str| fetch_with(&server, &format!("/cam/{file}"), &[("Authorization", "Bearer s3cret")]);
    let index = get("index.m3u8");
    assert_eq!(index.header("cache-control"), Some("max-age=30"));
    assert!(uris(index.text()).contains(&"video1_stream.m3u8".to_owned()), "{}", index.text());
    let playlist = get("video1_stream.m3u8");
    assert_eq!(playlist.header("cache-control"), Some("no-cache"));
    let files = uris(playlist.text());
    let init = files.iter().find(|uri| uri.contains("init")).unwrap();
    let part = files.iter().find(|uri| uri.contains("_part")).unwrap();
    assert_eq!(get(init).header("cache-control"), Some("max-age=30"));
    assert_eq!(get(part).header("cache-control"), Some("max-age=3600"));
    let sessions = server.get("/v3/hlssessions/list").json();
    assert_eq!(
        (&sessions["itemCount"], &sessions["items"][0]["isCDN"]),
        (&1.into(), &true.into()),
        "{sessions}"
    );
}

#[test]
fn other_settings_end_muxers_and_a_path_that_goes_takes_its_own_along() {
    if !ours_or_say_skipped("other_settings_end_muxers_and_a_path_that_goes_takes_its_own_along") {
        return;
    }
    let server = Server::with(&format!("{HLS}hlsAlwaysRemux: yes\n"), "  cam:\n  other:\n");
    let _cameras = [
        publish(&server, "cam", &media::h264_aac().file),
        publish(&server, "other", &media::h264_aac().file),
    ];
    wait_for("both muxers", PATIENCE, || {
        let log = server.log_text();
        ["cam", "other"]
            .iter()
            .all(|name| log.contains(&format!("[HLS] [muxer {name}] created automatically")))
            .then_some(())
    });
    let viewer = Viewer::begin(&server, "cam");
    server.rewrite(&format!("{HLS}hlsAlwaysRemux: yes\n"), "  cam:\n");
    wait_for("the end of one", PATIENCE, || {
        server.log_text().contains("[HLS] [muxer other] destroyed: path configuration removed").then_some(())
    });
    assert_eq!(viewer.playlist("").status, 200);
    server.rewrite(&format!("{HLS}hlsAlwaysRemux: yes\nhlsSegmentDuration: 2s\n"), "  cam:\n");
    wait_for("the end of the other", PATIENCE, || {
        server.log_text().contains("[HLS] [muxer cam] destroyed: its settings have changed").then_some(())
    });
    assert_eq!(viewer.playlist("").status, 404);
    Viewer::begin(&server, "cam").playlist("").text();
}
