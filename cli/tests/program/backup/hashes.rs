//! Which of the hashes that were recorded of an image are compared.

use super::*;

#[test]
fn the_strongest_hash_that_is_known_is_compared() {
    let image = fs::read(Backup::new().path("image.raw")).unwrap();
    let md5 = hex::encode(md5::Md5::digest(&image));
    let both = Backup::changed(|d| d["image"]["checksum"] = md5.clone().into());
    let run = both.decrypt(&[]);
    assert!(run.stderr.contains("fetched: sha512 ") && !run.stderr.contains("md5"), "{}", run.stderr);
    // An algorithm that is not known here, and MD5 beside it.
    let unknown = Backup::changed(|d| {
        d["image"]["os_hash_algo"] = "shake_128".into();
        d["image"]["checksum"] = md5.clone().into();
    });
    assert!(unknown.decrypt(&[]).stderr.contains(&format!("fetched: md5 {md5}")));
    // Alone it leaves nothing to compare, which is no matter of a warning.
    let alone = Backup::changed(|d| {
        d["image"]["os_hash_algo"] = "shake_128".into();
        d["image"]["checksum"] = Value::Null;
    });
    alone.assert_refused(
        &["--quiet"],
        5,
        &["image.os_hash_algo", "shake_128, which is not known here", "--no-compare"],
    );
    assert_eq!(alone.decrypt(&["--no-compare"]).code, Some(0));
    // As Python names them.
    for (name, hex) in [
        ("sha3_512", hex::encode(sha3::Sha3_512::digest(&image))),
        ("blake2b", hex::encode(blake2::Blake2b512::digest(&image))),
    ] {
        let same = Backup::changed(|d| {
            (d["image"]["os_hash_algo"], d["image"]["os_hash_value"]) = (name.into(), hex.clone().into());
            d["image"]["checksum"] = Value::Null;
        });
        let run = same.decrypt(&[]);
        assert!(run.stderr.contains(&format!("fetched: {name} {hex}")), "{}", run.stderr);
        let other = Backup::changed(|d| {
            (d["image"]["os_hash_algo"], d["image"]["os_hash_value"]) = (name.into(), "00".into());
            d["image"]["checksum"] = Value::Null;
        });
        other.assert_refused(&["--quiet"], 4, &["image.os_hash_value", "it was 00"]);
    }
    let only_md5 = Backup::changed(|d| {
        (d["image"]["os_hash_algo"], d["image"]["os_hash_value"]) = (Value::Null, Value::Null);
        d["image"]["checksum"] = "00".into();
    });
    only_md5.assert_refused(&[], 4, &["image.checksum", "it was 00"]);
    let none =
        Backup::changed(|d| (d["image"]["os_hash_algo"], d["image"]["os_hash_value"]) = (Value::Null, Value::Null));
    let run = none.decrypt(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warning: the image was not compared"), "{}", run.stderr);
    // One that was asked for besides is compared, too.
    let wrong_md5 = Backup::changed(|d| d["image"]["checksum"] = "00".into());
    assert_eq!(wrong_md5.decrypt(&[]).code, Some(0), "SHA-512 is enough");
    fs::remove_file(wrong_md5.path("plain")).unwrap();
    wrong_md5.assert_refused(&["--hash", "md5"], 4, &["image.checksum", "it was 00"]);
}
