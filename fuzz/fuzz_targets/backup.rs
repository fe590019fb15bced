#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    unluks_fuzz::backup(data);
});
