#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| agentca_tests::fuzz_targets::lines(data));
