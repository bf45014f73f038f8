//! Format parameters: `key=value;key=value` (RFC 8866 §6.15 and the payload format RFCs).

use super::base64;

/// The parameters in order, keys and values trimmed. A value may contain `=`; a lone word has an empty value.
pub fn parameters(fmtp: &str) -> impl Iterator<Item = (&str, &str)> {
    fmtp.split(';').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        (key.trim(), value.trim())
    })
}

/// Value of the first parameter called `key`; keys compare without case.
pub fn get<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    parameters(fmtp).find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

/// The same parameters with `key` set to `value`: in its old place, or at the end if it is new.
pub fn set(fmtp: &str, key: &str, value: &str) -> String {
    let mut parts = Vec::new();
    let mut found = false;
    for (name, old) in parameters(fmtp) {
        match name.eq_ignore_ascii_case(key) {
            true if found => {}
            true => parts.push(format!("{name}={value}")),
            false if old.is_empty() => parts.push(name.to_owned()),
            false => parts.push(format!("{name}={old}")),
        }
        found |= name.eq_ignore_ascii_case(key);
    }
    if !found {
        parts.push(format!("{key}={value}"));
    }
    parts.join("; ")
}

/// The NAL units of a base64 list such as `sprop-parameter-sets` (RFC 6184 §8.1) or `sprop-vps`, `sprop-sps`,
/// `sprop-pps` (RFC 7798 §7.1). Units that do not decode are left out, and so are the Annex B start codes
/// that some cameras put before them.
pub fn parameter_sets(fmtp: &str, key: &str) -> Vec<Vec<u8>> {
    let units = get(fmtp, key).unwrap_or_default().split(',').filter_map(base64::decode);
    units.map(without_start_code).filter(|unit| !unit.is_empty()).collect()
}

/// The value for such a parameter.
pub fn encode_parameter_sets<'a>(units: impl IntoIterator<Item = &'a [u8]>) -> String {
    units.into_iter().map(base64::encode).collect::<Vec<_>>().join(",")
}

fn without_start_code(mut unit: Vec<u8>) -> Vec<u8> {
    let length = [&[0, 0, 0, 1][..], &[0, 0, 1]]
        .iter()
        .find(|code| unit.starts_with(code))
        .map_or(0, |code| code.len());
    unit.drain(..length);
    unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_any_spacing_and_case() {
        let fmtp =
            "packetization-mode=1;Profile-Level-Id=4D401E ; sprop-parameter-sets=Z01A,aO88gA==;; flag ;";
        assert_eq!(get(fmtp, "packetization-mode"), Some("1"));
        assert_eq!(get(fmtp, "profile-level-id"), Some("4D401E"));
        assert_eq!(get(fmtp, "SPROP-parameter-sets"), Some("Z01A,aO88gA=="));
        assert_eq!(get(fmtp, "flag"), Some(""));
        assert_eq!(get(fmtp, "absent"), None);
    }

    #[test]
    fn parameter_is_replaced_in_place_or_added() {
        assert_eq!(set("a=1;b=2; flag", "B", "3"), "a=1; b=3; flag");
        assert_eq!(set("a=1;a=2", "a", "3"), "a=3");
        assert_eq!(set("", "a", "x=="), "a=x==");
        assert_eq!(set("a=1", "b", "2"), "a=1; b=2");
    }

    #[test]
    fn parameter_sets_survive_bad_neighbours_and_start_codes() {
        let fmtp = "sprop-parameter-sets=Z01AHg==,***,AAAAAWjvPIA=";
        let want: [&[u8]; 2] = [&[0x67, 0x4d, 0x40, 0x1e], &[0x68, 0xef, 0x3c, 0x80]];
        assert_eq!(parameter_sets(fmtp, "sprop-parameter-sets"), want);
        assert_eq!(encode_parameter_sets(want), "Z01AHg==,aO88gA==");
        assert!(parameter_sets("", "sprop-vps").is_empty());
    }
}
