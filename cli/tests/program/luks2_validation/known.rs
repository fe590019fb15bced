//! The cases that cryptsetup's own `luks2-validation-test` has: 30 headers that must be accepted, 55 that must not.

use serde_json::{Value, json};

use crate::luks2_validation::{Accept, BIN, Case, Draft, Refuse, SIZE, case, number, remove};

/// All of them.
pub fn cases() -> Vec<Case> {
    let groups = [recovery(), json_area(), keyslots(), integers(), segments(), config(), sizes()];
    groups.into_iter().flatten().collect()
}

/// A checksum of something else.
fn wrong_checksum(copy: &mut crate::luks2_validation::Copy) {
    copy.finish.push((448, vec![0xd0; 32]));
}

/// Metadata whose end is missing: a string that goes on to the end of the area.
fn endless(text: String) -> Vec<u8> {
    let mut area = text.into_bytes();
    area.pop();
    area.push(b'"');
    area.resize(SIZE - BIN, b'j');
    area
}

/// Metadata made longer by an unknown key, so that `free` bytes of the area stay NUL.
fn filled(text: String, free: usize) -> Vec<u8> {
    let frame = text.replacen("\"config\":{", "\"config\":{\"filler\":\"\",", 1);
    let filler = "X".repeat(SIZE - BIN - free - frame.len());
    frame.replacen("\"filler\":\"", &format!("\"filler\":\"{filler}"), 1).into_bytes()
}

fn recovery() -> Vec<Case> {
    vec![
        case(Accept, "checksum wrong: primary", |d| wrong_checksum(&mut d.primary)),
        case(Accept, "checksum wrong: secondary", |d| wrong_checksum(&mut d.secondary)),
        case(Refuse, "checksum wrong: both", |d| d.copies(wrong_checksum)),
        case(Accept, "JSON endless, checksum right: primary", |d| d.primary.area = Some(endless(d.primary.text()))),
        case(Accept, "JSON endless, checksum right: secondary", |d| {
            d.secondary.area = Some(endless(d.secondary.text()))
        }),
        case(Accept, "JSON fills its area but for one NUL", |d| d.area(|t| filled(t, 1))),
        case(Accept, "pbkdf2 keyslot with argon2's parameters left", |d| {
            d.alone(|j| {
                let kdf = &mut j["keyslots"]["1"]["kdf"];
                (kdf["type"], kdf["iterations"], kdf["hash"]) = (json!("pbkdf2"), json!(1001), json!("sha256"));
            });
        }),
        case(Accept, "argon2i keyslot with pbkdf2's parameters left", |d| leftover_of_pbkdf2(d, "argon2i")),
        case(Accept, "argon2id keyslot with pbkdf2's parameters left", |d| leftover_of_pbkdf2(d, "argon2id")),
    ]
}

fn leftover_of_pbkdf2(d: &mut Draft, kind: &str) {
    d.alone(|j| {
        let kdf = &mut j["keyslots"]["0"]["kdf"];
        (kdf["type"], kdf["iterations"], kdf["hash"]) = (json!(kind), json!(1001), json!("sha256"));
    });
}

fn json_area() -> Vec<Case> {
    vec![
        case(Refuse, "a byte right behind the JSON", |d| d.area(|t| format!("{t}X").into_bytes())),
        case(Refuse, "a text some way behind the JSON", |d| {
            d.area(|t| [t.as_bytes(), &[0; 20], b"keep moving slowly"].concat());
        }),
        case(Refuse, "JSON fills its area without a NUL", |d| d.area(|t| filled(t, 0))),
        case(Refuse, "JSON does not begin with a brace", |d| d.area(|t| t.replacen('{', "[", 1).into_bytes())),
        case(Refuse, "the top level is an array", |d| d.area(|t| format!("[{t}]").into_bytes())),
        case(Accept, "a space in the JSON, and a token", |d| {
            d.json(empty_token);
            d.copies(|c| c.area = Some(c.text().replacen(":\"luks2\"", ": \"luks2\"", 1).into_bytes()));
        }),
        case(Accept, "spaces in the JSON up to 4 KiB, and a token", |d| {
            d.json(empty_token);
            d.copies(|c| {
                let text = c.text();
                let spaces = " ".repeat(4096 - text.len() % 4096);
                c.area = Some(text.replacen(":\"luks2\"", &format!(":{spaces}\"luks2\""), 1).into_bytes());
            });
        }),
        case(Refuse, "tokens is a number", |d| d.json(|j| j["tokens"] = json!(42))),
        case(Refuse, "many top objects are of other types", |d| {
            d.json(|j| {
                (j["tokens"], j["digests"]) = (json!(42), json!(42));
                (j["keyslots"], j["segments"]) = (json!([]), json!("hi"));
            });
        }),
        case(Refuse, "a digest names a keyslot that is not there", |d| {
            d.alone(|j| j["digests"]["0"]["keyslots"].as_array_mut().unwrap().push(json!("9")));
        }),
        case(Refuse, "a digest names a segment that is not there", |d| {
            d.alone(|j| j["digests"]["0"]["segments"].as_array_mut().unwrap().push(json!("9")));
        }),
        case(Refuse, "a token names a keyslot that is not there", |d| {
            d.alone(|j| j["tokens"]["0"] = json!({"type": "dummy", "keyslots": ["0", "9"]}));
        }),
    ]
}

fn empty_token(j: &mut Value) {
    j["tokens"]["0"] = json!({"type": "a", "keyslots": []});
}

fn keyslots() -> Vec<Case> {
    fn area(d: &mut Draft, offset: impl Fn(u64, u64) -> u64, size: impl Fn(u64) -> u64) {
        d.alone(|j| {
            let [o, s] = ["offset", "size"].map(|k| number(&j["keyslots"]["3"]["area"][k]));
            let to = &mut j["keyslots"]["4"]["area"];
            to["offset"] = offset(o, s).to_string().into();
            to["size"] = size(s).to_string().into();
        });
    }
    vec![
        case(Refuse, "two areas are the same", |d| area(d, |o, _| o, |s| s)),
        case(Refuse, "an area lies within another", |d| area(d, |o, _| o + 1, |s| s - 1)),
        case(Refuse, "an area reaches one byte into another", |d| area(d, |o, s| o + s - 1, |s| s)),
        case(Refuse, "an area reaches one byte into the header", |d| area(d, |_, _| 2 * 0x4000 - 1, |_| 1)),
        case(Refuse, "a keyslot without a digest", |d| {
            d.alone(|j| drop(j["digests"]["0"]["keyslots"].as_array_mut().unwrap().remove(0)));
        }),
        case(Refuse, "a keyslot with two digests", |d| {
            d.alone(|j| {
                j["digests"]["1"] = j["digests"]["0"].clone();
                j["digests"]["1"]["keyslots"] = json!(["1"]);
            });
        }),
        case(Refuse, "kdf and af are numbers", |d| {
            d.json(|j| (j["keyslots"]["0"]["kdf"], j["keyslots"]["0"]["af"]) = (json!(42), json!(42)));
        }),
        case(Refuse, "af.type is a number", |d| d.json(|j| j["keyslots"]["0"]["af"]["type"] = json!(42))),
        case(Refuse, "area is a number", |d| d.json(|j| j["keyslots"]["0"]["area"] = json!(42))),
        case(Refuse, "area.size is 2^64 - 1", |d| {
            d.json(|j| j["keyslots"]["0"]["area"]["size"] = json!("18446744073709551615"));
        }),
    ]
}

/// Sets a field of the segment, in the primary alone.
fn segment(key: &'static str, value: Value) -> impl Fn(&mut Draft) + Sync {
    move |d| d.alone(|j| j["segments"]["0"][key] = value.clone())
}

/// Removes a field of the segment, in the primary alone.
fn no_segment(key: &'static str) -> impl Fn(&mut Draft) + Sync {
    move |d| d.alone(|j| remove(&mut j["segments"]["0"], key))
}

fn integers() -> Vec<Case> {
    vec![
        case(Accept, "segment size 2^64 - 512", segment("size", json!("18446744073709551104"))),
        case(Refuse, "segment size 2^64", segment("size", json!("18446744073709551616"))),
        case(Refuse, "segment size -512", segment("size", json!("-512"))),
    ]
}

fn segments() -> Vec<Case> {
    vec![
        case(Refuse, "no segment type", no_segment("type")),
        case(Refuse, "segment type is a number", segment("type", json!(42))),
        case(Refuse, "no segment offset", no_segment("offset")),
        case(Refuse, "segment offset is negative", segment("offset", json!("-42"))),
        case(Refuse, "no segment size", no_segment("size")),
        case(Refuse, "segment size is a number", segment("size", json!(4096))),
        case(Refuse, "segment size is another word than dynamic", segment("size", json!("automatic"))),
        case(Refuse, "segment size is not of whole sectors", segment("size", json!("511"))),
        case(Refuse, "no encryption", no_segment("encryption")),
        case(Refuse, "encryption is an object", segment("encryption", json!({}))),
        case(Refuse, "encryption is empty", segment("encryption", json!(""))),
        case(Refuse, "no iv_tweak", no_segment("iv_tweak")),
        case(Refuse, "iv_tweak is a word", segment("iv_tweak", json!("dynamic"))),
        case(Refuse, "no sector_size", no_segment("sector_size")),
        case(Refuse, "sector_size 1023", segment("sector_size", json!(1023))),
        case(Refuse, "sector_size is a string", segment("sector_size", json!("4096"))),
        case(Refuse, "sector_size -1024", segment("sector_size", json!(-1024))),
        case(Accept, "a segment of unknown type", |d| {
            d.alone(|j| {
                let s = &mut j["segments"]["0"];
                *s = json!({"type": "some_type", "offset": s["offset"], "size": s["size"], "a_field": 0});
            });
        }),
        case(Accept, "two segments, the second of unknown type", |d| {
            d.alone(|j| {
                let end = number(&j["segments"]["0"]["offset"]) + 512;
                j["segments"]["0"]["size"] = json!("512");
                j["segments"]["1"] = json!({"type": "some", "offset": end.to_string(), "size": "dynamic"});
            });
        }),
        case(Refuse, "flags is a string", segment("flags", json!("hello"))),
        case(Refuse, "a flag is a number", segment("flags", json!(["hello", 1]))),
        case(Refuse, "a backup segment after a gap", |d| {
            d.alone(|j| j["segments"]["2"] = backup_segment());
        }),
        case(Refuse, "a backup segment's number wraps in 32 bits", |d| {
            d.alone(|j| {
                let offset = (number(&j["segments"]["0"]["offset"]) + 512).to_string();
                for id in 1..65 {
                    j["segments"][id.to_string()] = json!({"type": "linear", "offset": offset, "size": "512"});
                }
                j["segments"]["268435472"] = backup_segment();
            });
        }),
    ]
}

fn backup_segment() -> Value {
    json!({"type": "linear", "offset": "512", "size": "512", "flags": ["backup-x"]})
}

fn config() -> Vec<Case> {
    fn set(key: &'static str, value: impl Fn(&Value) -> u64 + Sync) -> impl Fn(&mut Draft) + Sync {
        move |d| d.alone(|j| j["config"][key] = value(j).to_string().into())
    }
    vec![
        case(Refuse, "keyslots_size reaches into the data", {
            set("keyslots_size", |j| number(&j["segments"]["0"]["offset"]) - 2 * 0x4000 + 4096)
        }),
        case(
            Refuse,
            "keyslots_size is not of whole 4 KiB",
            set("keyslots_size", |j| number(&j["config"]["keyslots_size"]) - 1),
        ),
        case(Refuse, "keyslots_size is less than the areas take", {
            set("keyslots_size", |j| {
                let areas = j["keyslots"].as_object().unwrap().values().map(|k| number(&k["area"]["size"]));
                areas.sum::<u64>() - 4096
            })
        }),
        case(Refuse, "json_size is 4 KiB more than there is", set("json_size", |_| 0x4000 - 4096 + 4096)),
        case(Refuse, "json_size is 4 KiB less than there is", set("json_size", |_| 0x4000 - 4096 - 4096)),
        case(Refuse, "json_size does not fit hdr_size", |d| {
            let json = d.primary.json.clone();
            d.resize(0x8000);
            d.json(|j| *j = json.clone());
        }),
    ]
}

fn sizes() -> Vec<Case> {
    let mut cases = vec![
        case(Refuse, "hdr_size 1 GiB: primary", |d| {
            d.resize(1 << 20);
            d.copies(|c| c.hdr_size = 1 << 30);
            d.secondary.kill();
        }),
        case(Refuse, "hdr_size 1 GiB: secondary", |d| {
            d.resize(1 << 20);
            d.secondary.hdr_size = 1 << 30;
            d.primary.kill();
        }),
        case(Refuse, "64 KiB: areas reach one byte into the header", |d| {
            d.resize(0x1_0000);
            d.alone(|j| {
                for k in j["keyslots"].as_object_mut().unwrap().values_mut() {
                    let offset = &mut k["area"]["offset"];
                    *offset = (number(offset) - 1).to_string().into();
                }
            });
        }),
        case(Refuse, "64 KiB: an area reaches one byte out of its room", |d| {
            d.resize(0x1_0000);
            d.alone(|j| {
                let size = number(&j["config"]["keyslots_size"]);
                let area = &mut j["keyslots"]["4"]["area"];
                area["offset"] = (size + 0x2_0000 - number(&area["size"]) + 1).to_string().into();
            });
        }),
        case(Refuse, "64 KiB: keyslots_size reaches into the data", |d| {
            d.resize(0x1_0000);
            d.alone(|j| {
                let size = number(&j["segments"]["0"]["offset"]) - 0x2_0000 + 4096;
                j["config"]["keyslots_size"] = size.to_string().into();
            });
        }),
    ];
    for shift in 0..9 {
        let size = SIZE << shift;
        let name = |which| format!("hdr_size {} KiB: {which}", size >> 10);
        if shift > 0 {
            cases.push(case(Accept, name("primary"), move |d| {
                d.resize(size);
                d.secondary.kill();
            }));
        }
        cases.push(case(Accept, name("secondary"), move |d| {
            d.resize(size);
            d.primary.kill();
        }));
    }
    cases
}
