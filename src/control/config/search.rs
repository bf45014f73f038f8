//! Where a configuration file is looked for when none is named.

use std::path::{Path, PathBuf};

/// In this order: our own name, then MediaMTX's places, then where containers mount the file for MediaMTX.
const PLACES: &[&str] = &[
    "corecast.yml",
    "rtsp-simple-server.yml",
    "mediamtx.yml",
    "/usr/local/etc/mediamtx.yml",
    "/usr/etc/mediamtx.yml",
    "/etc/mediamtx/mediamtx.yml",
    "/etc/corecast/corecast.yml",
    "/mediamtx.yml",
];

pub(super) fn first_existing(exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    PLACES.iter().map(Path::new).find(|place| exists(place)).map(Path::to_owned)
}

/// The warning for a start without any file.
pub(super) fn nothing_found() -> String {
    format!(
        "configuration file not found (looked for {}), using an empty configuration: there are no paths but those of --demo and of environment variables",
        PLACES.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_name_comes_first_and_the_container_mount_last() {
        assert_eq!(first_existing(|_| true), Some("corecast.yml".into()));
        let absolute = |place: &Path| place.is_absolute();
        assert_eq!(first_existing(absolute), Some("/usr/local/etc/mediamtx.yml".into()));
        assert_eq!(first_existing(|place| place == Path::new("/mediamtx.yml")), Some("/mediamtx.yml".into()));
        assert_eq!(first_existing(|_| false), None);
    }
}
