//! The tables in `docs/configuration.md`, written from the table of settings. Only a test writes and checks them
//! (`shipped`), so they are built with the tests alone.

use crate::config::description::push;
use crate::config::environment::PREFIX;
use crate::config::setting::{Reload, Section, Setting};
use crate::config::table::sections;

/// Start of the generated part of `docs/configuration.md`.
pub(crate) const BEGIN: &str = "<!-- begin: written by `make settings` -->\n";
/// End of the generated part.
pub(crate) const END: &str = "<!-- end -->\n";

/// The part of `docs/configuration.md` between [`BEGIN`] and [`END`].
#[must_use]
pub(crate) fn documented() -> String {
    let mut text = String::new();
    for section in sections() {
        match section.header {
            "" => text.push_str("\n### Outside of any section\n\n"),
            header => push(&mut text, format_args!("\n### `{header}`\n\n")),
        }
        if !section.about.is_empty() {
            push(&mut text, format_args!("{}\n\n", flowing(&section.about)));
        }
        let first = section.settings.first().map_or("", |setting| setting.key);
        push(&mut text, format_args!("Variables: `{}` and so on.\n\n", variable(&section, first)));
        text.push_str("| key | default | value | |\n| --- | --- | --- | --- |\n");
        for setting in &section.settings {
            row(&mut text, setting);
        }
    }
    text
}

fn row(text: &mut String, setting: &Setting) {
    let Setting { key, default, unit, .. } = setting;
    let meaning = flowing(&setting.text).replace('|', "\\|");
    let again = match setting.reload {
        Reload::Restart => "",
        Reload::FileAgain => "  The file is reread on reload.",
    };
    let bounds = setting.bounds.as_ref().map(|bounds| format!(", {}", bounds.replace('"', "")));
    let bounds = bounds.unwrap_or_default();
    push(text, format_args!("| `{key}` | `{default}` | {unit}{bounds} | {meaning}{again} |\n"));
}

/// Lines of a comment as one paragraph. An indented line is an item: a word, and what it means.
fn flowing(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let line = line.strip_prefix(' ').unwrap_or(line);
        match line.strip_prefix("  ").and_then(|item| item.split_once("  ")) {
            Some((word, meaning)) => {
                push(&mut text, format_args!("<br>`{word}`: {}", meaning.trim()));
            }
            None if text.is_empty() => text.push_str(line),
            None => push(&mut text, format_args!(" {}", line.trim())),
        }
    }
    text
}

/// The variable that overrides `key` of a section. In a list, `0` stands for the number or the name of an entry.
fn variable(section: &Section, key: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in section.path().split('.').filter(|part| !part.is_empty()) {
        parts.push(part.to_ascii_uppercase());
        // Only lists stand at the beginning of a path, or at its end.
        if section.is_list() && section.path().ends_with(part) || part == "listener" {
            parts.push("0".to_owned());
        }
    }
    parts.push(key.to_ascii_uppercase());
    format!("{PREFIX}{}", parts.join("__"))
}
