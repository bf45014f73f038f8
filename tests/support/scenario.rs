//! A file of `tests/scenarios`: what a camera does, how a path pulls it, and how that must end.
//!
//! Lines begin with a word. `camera` is a trait of the camera (see [`super::mock`]), `first N` one that only its first
//! N connections meet. `path` is a line of the path's configuration, in which `{url}` is the camera's URL with the
//! credentials that are right, `{url PATH}` that of another path of it, `{bare}` and `{bare PATH}` the same without
//! credentials; without a `source` of its own a path has `source: {url}`. `must` lines are gone through in order:
//!
//! | line | means |
//! |---|---|
//! | `play [N]` | a new reader gets a keyframe first, and N packets without a loss |
//! | `play on TIME` | that reader gets packets for that long, none missing |
//! | `play somehow [N]` | a new reader gets N packets, whatever they are: the camera's numbering jumps |
//! | `play on somehow TIME` | the same for the reader that is there |
//! | `be closed` | that reader is closed |
//! | `be described as CODEC…` | what ffprobe finds |
//! | `answer CODE` | DESCRIBE is answered so |
//! | `say TEXT` | the API's `sourceError` comes to hold that |
//! | `be STATE` | the API's `sourceState` comes to be that |
//! | `use TRANSPORT`, `set up N…` | how the newest session travels, and what it set up |
//! | `ask METHOD`, `never ask METHOD` | the camera is, was not, asked that |
//! | `start N times`, `start again` | sessions that played; one more than before |
//! | `connect at most N times in TIME` | counted from here on |
//! | `stay for TIME` | the session goes on |
//! | `leave` | that reader leaves |
//! | `log at most N lines` | that name the path, so far |

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Flow, Mock, PATIENCE, Rtsp, Server,
    mock::{Asked, Plan, duration},
    rtsp::Item,
    tools::Tool,
    wait_for,
};

pub struct Scenario {
    /// The file's, without its suffix; also that of the path.
    pub name: String,
    mock: Mock,
    /// Of the camera.
    stream: String,
    path: Vec<String>,
    musts: Vec<String>,
}

/// The name of the camera's stream, where a scenario does not say one.
const STREAM: &str = "cam";

impl Scenario {
    /// All scenarios whose name begins with `prefix`, their cameras running.
    pub fn all(prefix: &str) -> Vec<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
        let wanted = files.iter().filter(|file| name(file).starts_with(prefix));
        wanted.map(|file| Self::read(name(file), &fs::read_to_string(file).unwrap())).collect()
    }

    pub fn read(name: String, text: &str) -> Self {
        let (mut camera, mut first) = (Vec::new(), Vec::new());
        let (mut path, mut musts) = (Vec::new(), Vec::new());
        let mut first_count = 0;
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "camera" => camera.push(rest),
                "first" => {
                    let (count, rest) = rest.split_once(' ').unwrap();
                    first_count = count.parse().expect("first N …");
                    first.push(rest);
                }
                "path" => path.push(rest.to_owned()),
                "must" => musts.push(rest.to_owned()),
                _ => panic!("{name}: no line of a scenario: {line:?}"),
            }
        }
        assert!(!musts.is_empty(), "{name}: nothing must be");
        let plan = Plan::read(&camera.join("\n"));
        let first = (!first.is_empty()).then(|| {
            let mut plan = plan.clone();
            first.iter().for_each(|line| plan.apply(line));
            (first_count, plan)
        });
        let mock = Mock::with(&plan, first, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        if !path.iter().any(|line| line.starts_with("source:")) {
            path.insert(0, "source: {url}".to_owned());
        }
        let stream = path.iter().find_map(|line| Some(line.split_once("{url ")?.1.split_once('}')?.0));
        let stream = stream.unwrap_or(STREAM).to_owned();
        Self { name, mock, stream, path, musts }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.mock.asked()
    }

    /// Its entry under `paths:`.
    pub fn config(&self) -> String {
        let mut text = format!("  {}:\n", self.name);
        for line in &self.path {
            text += &format!("    {}\n", self.filled(line));
        }
        text
    }

    fn filled(&self, line: &str) -> String {
        let mut line = line.replace("{url}", &self.mock.url(&self.stream));
        line = line.replace("{bare}", &self.mock.bare_url(&self.stream));
        for (mark, url) in [("{url ", Mock::url as fn(&Mock, &str) -> String), ("{bare ", Mock::bare_url)] {
            while let Some((before, rest)) = line.split_once(mark) {
                let (path, after) = rest.split_once('}').unwrap();
                line = format!("{before}{}{after}", url(&self.mock, path));
            }
        }
        line
    }

    /// Goes through what must be; panics at what is not.
    pub fn check(&self, server: &Server) {
        let mut run = Run { scenario: self, server, reader: None, flow: None };
        for must in &self.musts {
            run.must(must);
        }
    }
}

struct Run<'a> {
    scenario: &'a Scenario,
    server: &'a Server,
    reader: Option<Rtsp>,
    /// What the reader got; none where numbers mean nothing.
    flow: Option<Flow>,
}

impl Run<'_> {
    fn must(&mut self, must: &str) {
        let Scenario { name, mock, stream, .. } = self.scenario;
        let words: Vec<&str> = must.split_whitespace().collect();
        let number = |word: &str| word.parse::<usize>().unwrap_or_else(|_| panic!("no number in {must:?}"));
        let what = format!("{name} must {must}");
        match words[..] {
            ["play"] => self.play(60),
            ["play", "on", "somehow", time] => self.go_on(duration(time)),
            ["play", "on", time] => {
                self.go_on(duration(time));
                self.flow.as_ref().expect("a reader with a flow").assert_lossless(1);
            }
            ["play", "somehow", ref count @ ..] => {
                self.join();
                self.flow = None;
                let count = count.first().map_or(60, |count| number(count));
                let reader = self.reader.as_mut().unwrap();
                (0..count).for_each(|n| {
                    assert!(reader.frame(PATIENCE).is_some(), "the stream ended after {n} packets");
                });
            }
            ["play", count] => self.play(number(count)),
            ["be", "closed"] => {
                assert!(self.reader.take().expect("a reader").closed_within(PATIENCE), "it is not closed");
            }
            ["be", "described", "as", ref codecs @ ..] => self.described_as(codecs),
            ["be", state] => {
                wait_for(&what, PATIENCE, || (self.api()["sourceState"] == state).then_some(()));
            }
            ["answer", code] => {
                let mut client = Rtsp::connect(self.server);
                let answer = client.describe(name);
                assert_eq!(usize::from(answer.status), number(code), "{answer:?}");
            }
            ["say", ..] => self.say(must.split_once(' ').unwrap().1),
            ["use", transport] => {
                assert_eq!(mock.played(stream).last().expect("a session").transport, transport);
            }
            ["set", "up", ref tracks @ ..] => {
                let wanted: Vec<usize> = tracks.iter().map(|track| number(track)).collect();
                assert_eq!(mock.played(stream).last().expect("a session").tracks, wanted);
            }
            ["ask", method] => {
                wait_for(&what, PATIENCE, || (mock.count(method) > 0).then_some(()));
            }
            ["never", "ask", method] => assert_eq!(mock.count(method), 0),
            ["start", count, "times"] => assert_eq!(mock.played(stream).len(), number(count)),
            ["start", "again"] => {
                let before = mock.played(stream).iter().filter(|played| played.ended.is_some()).count();
                wait_for(&what, PATIENCE, || (mock.played(stream).len() > before.max(1)).then_some(()));
            }
            ["connect", "at", "most", count, "times", "in", time] => {
                let before = mock.connections();
                thread::sleep(duration(time));
                let came = mock.connections() - before;
                assert!(came <= number(count), "{came} connections in {time}");
            }
            ["stay", "for", time] => {
                wait_for(&what, PATIENCE, || (mock.playing(stream) > 0).then_some(()));
                thread::sleep(duration(time));
                assert_eq!(mock.playing(stream), 1, "the session is gone");
            }
            ["leave"] => drop(self.reader.take().expect("a reader")),
            ["log", "at", "most", count, "lines"] => {
                let lines = self.server.log_lines();
                let mine: Vec<_> = lines.iter().filter(|line| line.contains(name.as_str())).collect();
                assert!(mine.len() <= number(count), "{} lines: {mine:#?}", mine.len());
            }
            _ => panic!("nothing that can be: {must:?}"),
        }
    }

    fn api(&self) -> Value {
        let answer = self.server.get(&format!("/v3/paths/get/{}", self.scenario.name));
        if answer.status == 200 { answer.json() } else { Value::Null }
    }

    fn say(&self, text: &str) {
        let mut last = Value::Null;
        let give_up = Instant::now() + PATIENCE;
        while !last.as_str().is_some_and(|error| error.contains(text)) {
            assert!(Instant::now() < give_up, "sourceError is {last}, not {text:?}");
            thread::sleep(Duration::from_millis(50));
            last = self.api()["sourceError"].take();
        }
        assert!(!last.as_str().unwrap().contains("secret"), "a password: {last}");
    }

    /// A new reader, as soon as there is a stream to read.
    fn join(&mut self) {
        let name = &self.scenario.name;
        let reader = wait_for(
            &format!("{name} can be read; it says {:?}", self.api()["sourceError"]),
            PATIENCE,
            || {
                let mut client = Rtsp::connect(self.server);
                (client.describe(name).status == 200).then_some(())?;
                let controls = client.controls.clone();
                let set_up = controls.iter().enumerate().all(|(n, control)| {
                    let transport = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", 2 * n, 2 * n + 1);
                    client.setup(control, &transport).status == 200
                });
                (set_up && client.play().status == 200).then_some(client)
            },
        );
        self.reader = Some(reader);
    }

    fn play(&mut self, count: usize) {
        self.join();
        let record =
            wait_for("the camera plays", PATIENCE, || self.scenario.mock.record(&self.scenario.stream));
        let mut flow = Flow::of_record(record.clone());
        flow.read(self.reader.as_mut().unwrap(), count);
        flow.assert_lossless(count);
        // MediaMTX sends what comes next.
        let ok = record.begins_key(flow.first.unwrap()) || !super::server::is_ours();
        assert!(ok, "it does not begin with a keyframe");
        self.flow = Some(flow);
    }

    fn go_on(&mut self, time: Duration) {
        let reader = self.reader.as_mut().expect("a reader");
        let until = Instant::now() + time;
        let mut frames = 0;
        loop {
            match reader.item(until) {
                Item::Frame(frame) => {
                    frames += 1;
                    self.flow.iter_mut().for_each(|flow| flow.take(&frame));
                }
                Item::Response(_) => {}
                Item::Closed => panic!("the reader was closed after {frames} packets more"),
                Item::TimedOut => break,
            }
        }
        assert!(frames > 0, "nothing came in {time:?}");
    }

    fn described_as(&self, codecs: &[&str]) {
        let url = self.server.url(&self.scenario.name);
        let entries = ["-show_entries", "stream=codec_name", "-of", "csv=p=0", &url];
        let ended =
            Tool::run("ffprobe", ["-v", "error", "-rtsp_transport", "tcp"].iter().chain(&entries)).ended();
        ended.assert_success();
        assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), codecs);
    }
}
