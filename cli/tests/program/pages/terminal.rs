//! What a terminal shows, as a page: its text with the colours that are used here.

/// A page of what was printed to a terminal, below the command that printed it.
pub fn page(command: &str, printed: &str) -> String {
    let mut text = escaped(&format!("$ {command}\n"));
    let mut class = String::new();
    for (n, part) in printed.replace('\r', "").split("\u{1b}[").enumerate() {
        let (codes, shown) = if n == 0 { ("", part) } else { part.split_once('m').unwrap_or(("", "")) };
        for code in codes.split(';') {
            match code {
                "0" => class.clear(),
                "" => {}
                code => class += &format!("c{code} "),
            }
        }
        text += &format!("<span class=\"{}\">{}</span>", class.trim(), escaped(shown));
    }
    format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><style>\
         body{{margin:0;padding:14px 18px;background:#16191d;color:#d6dbe1}}\
         pre{{margin:0;white-space:pre-wrap;word-break:break-all;font:14px/1.35 \"DejaVu Sans Mono\",monospace}}\
         .c1{{font-weight:700}}.c2{{color:#8b949e}}.c31{{color:#ff7b72}}.c32{{color:#7ee787}}.c33{{color:#e3b341}}\
         .c34{{color:#79c0ff}}.c35{{color:#d2a8ff}}.c36{{color:#76e3ea}}</style><pre>{text}</pre>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
