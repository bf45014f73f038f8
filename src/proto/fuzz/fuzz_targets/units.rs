#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| corecast_proto::fuzzing::units(input));
