//! The URLs that the requests of a session go to (RFC 2326 appendix C.1.1).
//!
//! A description names its tracks by `a=control`, absolute or relative to a base, which is the Content-Base, else the
//! Content-Location, else the URL that was asked for. Of an absolute one only path and query are taken: a camera
//! behind NAT names its private address, others name 0.0.0.0 or another port, and yet the request must go to who was
//! dialled. gortsplib does the same with control attributes. A relative one is appended after path and query, as
//! FFmpeg, gortsplib and live555 do, not put in the place of the last segment as RFC 3986 §5.2 has it: cameras leave
//! out the slash at the end of the base.

use super::{super::Headers, SourceUrl, url::printable};

/// Bytes of a URL that is still sent. Cameras need some 200.
const URL_BYTES_MAX: usize = 4096;

/// Where the requests of one described stream go.
#[derive(Debug)]
pub(super) struct Urls {
    /// `rtsp://host:port` of who was dialled.
    place: String,
    /// What relative control attributes are appended to.
    base: String,
    /// For requests about all tracks: PLAY, keep-alives, TEARDOWN.
    aggregate: String,
}

impl Urls {
    /// Before there is a description.
    pub fn of_request(dialled: &SourceUrl) -> Self {
        let url = dialled.to_string();
        Self { place: place(dialled), base: url.clone(), aggregate: url }
    }

    /// From the header fields of the answer to DESCRIBE, and the control attribute of the session level.
    pub fn of_description(dialled: &SourceUrl, headers: &Headers, session_control: Option<&str>) -> Self {
        let place = place(dialled);
        let header = |name| headers.get(name).and_then(|value| at_place(&place, value));
        let base = header("Content-Base").or_else(|| header("Content-Location"));
        let base = base.unwrap_or_else(|| dialled.to_string());
        let session_control = session_control.map(printable);
        let session_control = session_control.as_deref().filter(|control| !matches!(*control, "" | "*"));
        match session_control {
            None => Self { place, aggregate: base.clone(), base },
            Some(control) => match absolute(control) {
                // A mere host is no place of a stream.
                Some("" | "/") => Self { place, aggregate: base.clone(), base },
                // FFmpeg and gortsplib take it for the base, too.
                Some(tail) => {
                    let base = format!("{place}{tail}");
                    Self { place, aggregate: base.clone(), base }
                }
                None => Self { aggregate: join(&place, &base, control), place, base },
            },
        }
    }

    pub fn aggregate(&self) -> &str {
        &self.aggregate
    }

    /// The URL of a track; `None` when it is too long to be one.
    pub fn track(&self, control: &str) -> Option<String> {
        let url = join(&self.place, &self.base, &printable(control));
        (url.len() <= URL_BYTES_MAX).then_some(url)
    }
}

fn place(url: &SourceUrl) -> String {
    SourceUrl { tail: String::new(), ..url.clone() }.to_string()
}

/// Path and query of a URL with scheme and host.
fn absolute(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme.then(|| &rest[rest.find(['/', '?']).unwrap_or(rest.len())..])
}

/// A URL or an absolute path, at our host. `None` for what is neither.
fn at_place(place: &str, url: &str) -> Option<String> {
    let url = printable(url);
    let tail = absolute(&url).or_else(|| url.starts_with('/').then_some(&url))?;
    (tail.len() <= URL_BYTES_MAX).then(|| format!("{place}{tail}"))
}

fn join(place: &str, base: &str, control: &str) -> String {
    if matches!(control, "" | "*") {
        return base.to_owned();
    }
    if let Some(tail) = absolute(control) {
        return format!("{place}{tail}");
    }
    if control.starts_with('/') {
        // Some mean a path from the root, most only forgot that the base may end in a slash.
        let stem = base[place.len().min(base.len())..].trim_end_matches('/');
        let from_root = control.strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'));
        let before = if from_root { place } else { base.trim_end_matches('/') };
        return format!("{before}{control}");
    }
    let slash = if base.ends_with('/') || control.starts_with('?') { "" } else { "/" };
    format!("{base}{slash}{control}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(dialled: &str, headers: &[(&str, &str)], session_control: Option<&str>) -> Urls {
        let mut all = Headers::new();
        headers.iter().for_each(|(name, value)| all.push(*name, *value));
        Urls::of_description(&SourceUrl::parse(dialled).unwrap(), &all, session_control)
    }

    /// Dialled URL, Content-Base, session control, track control; wanted URL of PLAY and of the track.
    type Case = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

    #[test]
    fn control_attributes_as_cameras_write_them_give_the_urls_they_answer_to() {
        let cases: &[Case] = &[
            // gortsplib, MediaMTX
            (
                "rtsp://h/cam",
                "rtsp://h/cam/",
                "",
                "trackID=0",
                "rtsp://h:554/cam/",
                "rtsp://h:554/cam/trackID=0",
            ),
            // Hikvision: everything absolute
            (
                "rtsp://h/Streaming/Channels/101",
                "rtsp://h:554/Streaming/Channels/101/",
                "rtsp://h:554/Streaming/Channels/101/",
                "rtsp://h:554/Streaming/Channels/101/trackID=1",
                "rtsp://h:554/Streaming/Channels/101/",
                "rtsp://h:554/Streaming/Channels/101/trackID=1",
            ),
            // Dahua: no slash at the end of the base, a query in it
            (
                "rtsp://h/cam/realmonitor?channel=1&subtype=0",
                "rtsp://h:554/cam/realmonitor?channel=1&subtype=0",
                "*",
                "trackID=0",
                "rtsp://h:554/cam/realmonitor?channel=1&subtype=0",
                "rtsp://h:554/cam/realmonitor?channel=1&subtype=0/trackID=0",
            ),
            // Axis: the query is in the control attribute
            (
                "rtsp://h/axis-media/media.amp?videocodec=h264",
                "rtsp://h/axis-media/media.amp/",
                "rtsp://h/axis-media/media.amp?videocodec=h264",
                "rtsp://h/axis-media/media.amp/stream=0?videocodec=h264",
                "rtsp://h:554/axis-media/media.amp?videocodec=h264",
                "rtsp://h:554/axis-media/media.amp/stream=0?videocodec=h264",
            ),
            // behind NAT: private address and port, userinfo
            (
                "rtsp://public:8554/live",
                "rtsp://admin:x@192.168.1.10:554/live/",
                "",
                "rtsp://admin:x@192.168.1.10:554/live/track1",
                "rtsp://public:8554/live/",
                "rtsp://public:8554/live/track1",
            ),
            // over TLS a camera names its plain URL
            (
                "rtsps://h/live",
                "rtsp://h/live/",
                "",
                "rtsp://h:554/live/1",
                "rtsps://h:322/live/",
                "rtsps://h:322/live/1",
            ),
            // Content-Base as a path, or nothing that can be used
            ("rtsp://h/a", "/b/", "", "1", "rtsp://h:554/b/", "rtsp://h:554/b/1"),
            ("rtsp://h/a", "live", "", "1", "rtsp://h:554/a", "rtsp://h:554/a/1"),
            ("rtsp://h/a", "", "*", "*", "rtsp://h:554/a", "rtsp://h:554/a"),
            ("rtsp://h/a", "", "", "", "rtsp://h:554/a", "rtsp://h:554/a"),
            // slashes in front
            ("rtsp://h/a", "rtsp://h/a/", "", "/track1", "rtsp://h:554/a/", "rtsp://h:554/a/track1"),
            ("rtsp://h/a", "", "", "/a/track1", "rtsp://h:554/a", "rtsp://h:554/a/track1"),
            ("rtsp://h/a", "", "", "/ab/track1", "rtsp://h:554/a", "rtsp://h:554/a/ab/track1"),
            ("rtsp://h/a", "", "", "?track=1", "rtsp://h:554/a", "rtsp://h:554/a?track=1"),
            ("rtsp://h", "", "", "track1", "rtsp://h:554", "rtsp://h:554/track1"),
            // session level: relative, and a mere host
            ("rtsp://h/a", "", "all", "1", "rtsp://h:554/a/all", "rtsp://h:554/a/1"),
            ("rtsp://h/a", "", "rtsp://0.0.0.0", "1", "rtsp://h:554/a", "rtsp://h:554/a/1"),
            ("rtsp://h/a", "rtsp://h/b", "rtsp://h/c", "1", "rtsp://h:554/c", "rtsp://h:554/c/1"),
            ("rtsp://[::1]/a", "rtsp://[fe80::1]/a/", "", "1", "rtsp://[::1]:554/a/", "rtsp://[::1]:554/a/1"),
        ];
        for (dialled, base, session, control, play, track) in cases {
            let urls = urls(dialled, &[("Content-Base", base)], Some(session));
            assert_eq!(urls.aggregate(), *play, "{dialled} {base} {session}");
            assert_eq!(urls.track(control).as_deref(), Some(*track), "{dialled} {base} {session} {control}");
        }
    }

    #[test]
    fn content_location_is_the_base_when_there_is_no_other() {
        let location = ("content-location", "rtsp://h/b/");
        assert_eq!(urls("rtsp://h/a", &[location], None).aggregate(), "rtsp://h:554/b/");
        let both = [location, ("Content-Base", "rtsp://h/c/")];
        assert_eq!(urls("rtsp://h/a", &both, None).aggregate(), "rtsp://h:554/c/");
    }

    #[test]
    fn endless_control_attribute_is_no_url() {
        assert_eq!(urls("rtsp://h/a", &[], None).track(&"x".repeat(URL_BYTES_MAX)), None);
    }
}
