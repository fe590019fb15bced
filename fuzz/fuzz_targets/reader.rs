#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    unluks_fuzz::TARGETS.iter().find(|(name, _)| *name == "reader").unwrap().1(data);
});
