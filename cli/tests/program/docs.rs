//! SECURITY.md says what `src/limits.rs` does.

use std::collections::BTreeMap;
use std::fs;

fn read(name: &str) -> String {
    let path = crate::common::root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The value of an expression as `src/limits.rs` has them: numbers, shifts and durations.
fn value(expression: &str) -> u64 {
    let bare = expression.strip_prefix("Duration::from_secs(").and_then(|e| e.strip_suffix(')')).unwrap_or(expression);
    let number = |text: &str| {
        let text = text.trim().replace('_', "");
        let parsed = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        parsed.unwrap_or_else(|e| panic!("{expression}: {e}"))
    };
    match bare.split_once("<<") {
        Some((left, right)) => number(left) << number(right),
        None => number(bare),
    }
}

/// Every constant of `src/limits.rs` that callers see.
fn constants() -> BTreeMap<String, u64> {
    let limits = read("src/limits.rs");
    let constants = limits.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("pub const ")?.split_once(": ")?;
        let (_, expression) = rest.split_once(" = ")?;
        Some((name.to_owned(), value(expression.trim_end_matches(';'))))
    });
    constants.collect()
}

/// The rows of the table of limits: the constant's name, and the other cells.
fn rows() -> BTreeMap<String, Vec<String>> {
    let security = read("SECURITY.md");
    let (_, section) = security.split_once("\n## Limits\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").map(str::to_owned).collect();
        let (name, _) = cells[0].split_once('`')?;
        Some((name.to_owned(), cells[1..].to_vec()))
    });
    rows.collect()
}

#[test]
fn every_limit_is_in_the_table_with_its_number_and_its_flag() {
    let (constants, rows) = (constants(), rows());
    assert_eq!(constants.get("KDF_TIME"), Some(&600), "the constants are found");
    assert_eq!(constants.keys().collect::<Vec<_>>(), rows.keys().collect::<Vec<_>>());
    let help = read("cli/src/args.rs") + &read("cli/src/args/serve.rs");
    for (name, number) in &constants {
        let [default, flag, why] = rows[name].as_slice() else { panic!("{name}: three cells are wanted") };
        let first: String = default.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(first, number.to_string(), "{name}");
        let field = flag.strip_prefix("`--").and_then(|f| f.split('`').next()).map(|f| f.replace('-', "_"));
        let known = flag.starts_with("fixed") || field.is_some_and(|f| help.contains(&format!("pub {f}: ")));
        assert!(known, "{name}: \"{flag}\" is neither fixed nor a flag of the program");
        assert!(why.trim_end_matches(" |").len() > 3, "{name}: why?");
    }
}

#[test]
fn the_code_has_these_numbers_too() {
    use unluks::limits::{self, Limits};
    let constants = constants();
    assert_eq!(constants["KDF_MEMORY"], Limits::default().kdf_memory);
    assert_eq!(constants["KDF_TIME"], Limits::default().kdf_time.as_secs());
    assert_eq!(constants["LUKS2_HDR_SIZE_MAX"], limits::LUKS2_HDR_SIZE_MAX);
    assert_eq!(constants["LUKS2_KEYSLOTS_SIZE_MAX"], limits::LUKS2_KEYSLOTS_SIZE_MAX);
    assert_eq!(constants["JSON_VALUES_MAX"], u64::try_from(limits::JSON_VALUES_MAX).unwrap());
    assert_eq!(Limits::for_memory(4 << 30).kdf_memory, 3 << 30, "three quarters of the machine's memory");
}
