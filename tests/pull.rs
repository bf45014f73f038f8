//! Cameras as they are, good and bad: each file of `tests/scenarios` says what one does and how its pull must end. All
//! are pulled by one relay at once, so that each is also a test that the bad ones do no harm to the others.
//!
//! `CORECAST_SCENARIOS=auth` runs only those whose name begins so.

use std::thread;

use crate::support::{Server, scenario::Scenario};

/// Short, so that what hangs is soon given up; `automatic` tries UDP for three seconds.
const GLOBALS: &str = "readTimeout: 4s\n";

#[test]
fn every_scenario_ends_as_its_file_says() {
    let prefix = std::env::var("CORECAST_SCENARIOS").unwrap_or_default();
    let scenarios = Scenario::all(&prefix);
    assert!(!scenarios.is_empty(), "no scenario begins with {prefix:?}");
    let config: String = scenarios.iter().map(Scenario::config).collect();
    let mut server = Server::with_api(GLOBALS, &config);
    let failed: Vec<String> = thread::scope(|scope| {
        let running: Vec<_> =
            scenarios.iter().map(|scenario| (scenario, scope.spawn(|| scenario.check(&server)))).collect();
        let failed = running.into_iter().filter_map(|(scenario, thread)| {
            let said = thread.join().err()?;
            let text = said.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| said.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Some(format!("{}: {text}", scenario.name))
        });
        failed.collect()
    });
    server.assert_alive();
    for scenario in &scenarios {
        let told = scenario.asked().iter().any(|asked| asked.url.contains("secret"));
        assert!(!told, "{}: a request line holds the password", scenario.name);
    }
    assert!(failed.is_empty(), "{} of {} scenarios:\n{}", failed.len(), scenarios.len(), failed.join("\n"));
}
