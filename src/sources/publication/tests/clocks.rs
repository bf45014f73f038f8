//! Sources whose clocks do what they want: none of it ends anything, and readers are told sane times.

use super::*;

/// What readers would be told now: how far the told wall-clock time is from `wall`, and the RTP time.
fn told(publication: &Publication, clock: &Clock, wall: Duration) -> (Duration, u32) {
    let mut report = Vec::new();
    assert!(publication.tracks.write_report(0, clock.0, &mut report));
    let report = sender_report(&report);
    (report.ntp.to_unix().abs_diff(wall), report.rtp_timestamp)
}

const HOURS: u32 = 2 * 3600 * 90_000;

#[test]
fn a_clock_that_jumps_by_hours_is_followed_and_the_time_goes_on() {
    for (step, reports) in [(HOURS, true), (HOURS.wrapping_neg(), true), (HOURS, false), (1 << 31, true)] {
        let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
        let ahead = Duration::from_secs(if reports { 1800 } else { 0 });
        let mut source = camera(1, 10, 1000);
        if reports {
            publication.append(0, Plane::Rtcp, &source.report(clock.0.wall + ahead), clock.0);
        }
        source.send(&mut publication, &mut clock, 50);
        source.timestamp = source.timestamp.wrapping_add(step);
        source.send(&mut publication, &mut clock, 50);
        let (off, timestamp) = told(&publication, &clock, clock.0.wall + ahead);
        assert!(off < Duration::from_millis(50), "{off:?}");
        assert_eq!(timestamp, source.timestamp);
        assert_eq!((publication.tracks.clock_jumps(), publication.tracks.lost()), (1, 0));
        assert_eq!(got(&publication, 0).len(), 100, "every packet goes on");
    }
}

#[test]
fn single_stamps_that_are_hours_off_move_no_clock() {
    // A DVR that does so every two seconds (mediamtx#6255).
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let mut source = camera(1, 10, 1000);
    source.send(&mut publication, &mut clock, 50);
    for wild in 0..10u32 {
        let honest = source.timestamp;
        source.timestamp = honest.wrapping_add(HOURS.wrapping_mul(wild + 1));
        let frame = source.frame();
        publication.append(0, Plane::Rtp, &frame, clock.0);
        source.timestamp = honest.wrapping_add(3600);
        clock.wait(Duration::from_millis(40));
        let (off, timestamp) = told(&publication, &clock, clock.0.wall);
        assert!(off < Duration::from_millis(50), "{off:?} after a wild one");
        assert_eq!(timestamp, source.timestamp);
        let next = publication.tracks.next_packet(0, clock.0.instant).unwrap();
        assert_eq!(next, (source.sequence, source.timestamp));
        source.send(&mut publication, &mut clock, 49);
        assert!(told(&publication, &clock, clock.0.wall).0 < Duration::from_millis(50));
    }
    assert_eq!(publication.tracks.clock_jumps(), 10);
    assert_eq!(publication.tracks.restarts(), 0);
}

#[test]
fn a_seam_right_after_a_wild_stamp_goes_on_where_the_clock_was() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let mut source = camera(1, 10, 1000);
    source.send(&mut publication, &mut clock, 3);
    source.timestamp = source.timestamp.wrapping_add(HOURS);
    source.send(&mut publication, &mut clock, 1);
    publication.resume(&[video()]).unwrap();
    camera(2, 7, 7).send(&mut publication, &mut clock, 1);
    let last = headers(&publication, 0).pop().unwrap();
    assert_eq!((last.sequence, last.timestamp), (14, 1000 + 4 * 3600));
}

#[test]
fn stamps_that_go_back_a_little_are_no_jump() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let mut source = camera(1, 10, 1000);
    for _ in 0..20 {
        source.send(&mut publication, &mut clock, 25);
        // A second back, as of a camera that sets its clock.
        source.timestamp = source.timestamp.wrapping_sub(90_000);
    }
    assert_eq!((publication.tracks.clock_jumps(), publication.tracks.lost()), (0, 0));
    // It does not tell the time itself, so that it is the time of arrival, give or take what may be jitter.
    let (off, _) = told(&publication, &clock, clock.0.wall);
    assert!(off <= Duration::from_secs(6), "{off:?}");
    assert_eq!(got(&publication, 0).len(), 500);
}

#[test]
fn times_are_told_without_any_report_of_the_source_and_are_as_of_when_they_are_told() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let mut source = camera(1, 10, u32::MAX - 9000);
    source.send(&mut publication, &mut clock, 30);
    assert!(publication.report_time(clock.0));
    clock.wait(Duration::from_secs(11));
    assert!(publication.report_time(clock.0), "a silent source does not stop the time");
    let reports: Vec<_> = got(&publication, 1).iter().map(|report| sender_report(report)).collect();
    assert_eq!(reports.len(), 2);
    assert_eq!(reports[1].rtp_timestamp.wrapping_sub(reports[0].rtp_timestamp), 11 * 90_000);
    let gone = reports[1].ntp.to_unix() - reports[0].ntp.to_unix();
    assert!(gone.abs_diff(Duration::from_secs(11)) < Duration::from_micros(100), "{gone:?}");
    assert_eq!((reports[1].packets, reports[1].octets), (30, 120));
}

#[test]
fn a_goodbye_is_not_passed_on() {
    let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
    let mut source = camera(1, 10, 1000);
    source.send(&mut publication, &mut clock, 1);
    let mut goodbye = Vec::new();
    rtcp::write_goodbye(1, &mut goodbye);
    publication.append(0, Plane::Rtcp, &goodbye, clock.0);
    let with_report = [source.report(clock.0.wall), goodbye].concat();
    publication.append(0, Plane::Rtcp, &with_report, clock.0);
    assert!(got(&publication, 1).is_empty());
    assert_eq!(publication.tracks.inbound.rtcp_packets, 2);
    source.send(&mut publication, &mut clock, 1);
    assert_eq!(got(&publication, 0).len(), 2);
}

#[test]
fn reports_that_would_mislead_readers_are_replaced_by_ours() {
    for stray in [true, false] {
        let (mut publication, mut clock) = (publication(&[video()]), Clock::new());
        let mut source = camera(1, 10, 1000);
        for _ in 0..30 {
            source.send(&mut publication, &mut clock, 25);
            let report = match stray {
                // Of a clock that has nothing to do with the packets'.
                true => {
                    Source { timestamp: source.timestamp.wrapping_add(HOURS), ..source }.report(clock.0.wall)
                }
                // Of a source that does not know the time.
                false => {
                    let mut report = source.report(clock.0.wall);
                    report[8..16].fill(0);
                    report
                }
            };
            publication.append(0, Plane::Rtcp, &report, clock.0);
            publication.report_time(clock.0);
        }
        let reports: Vec<_> = got(&publication, 1).iter().map(|report| sender_report(report)).collect();
        assert!((3..=4).contains(&reports.len()), "{} in half a minute", reports.len());
        for report in reports {
            let sent = Duration::from_micros(u64::from(report.rtp_timestamp - 1000) * 100 / 9);
            assert!(report.ntp.to_unix().abs_diff(NOON + sent) < Duration::from_millis(1), "{report:?}");
        }
    }
}
