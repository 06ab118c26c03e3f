//! Generates text from the table of settings: `config/petrel.toml`, with every key, its default and a comment, and
//! the tables in `docs/configuration.md`. A test in `shipped` checks that both files are up to date, and rewrites
//! them on request (`make settings`).

use std::fmt::Write;

use crate::config::environment::variable;
use crate::config::setting::{Reload, Section, Setting};
use crate::config::table::sections;

/// Start of the generated part of `docs/configuration.md`.
pub const BEGIN: &str = "<!-- begin: written by `make settings` -->\n";
/// End of the generated part.
pub const END: &str = "<!-- end -->\n";

/// Longest line of the annotated file.
const LINE_CHARS: usize = 120;

const HEAD: &str = "\
# The configuration of Petrel: every key, with its default.
#
# A line such as `#level = \"info\"` shows a default: remove the # to change it. `petrel check` finds mistakes in this
# file, `petrel check --print` shows the values in force. Each key can be overridden by an environment variable,
# PETREL_SECTION__KEY: for example PETREL_LIMITS__MAX_PACKET_SIZE=1MiB or PETREL_LISTENER__MQTT__LISTEN=127.0.0.1:1884.
#
# Durations are written \"500ms\", \"30s\", \"5m\", \"1h 30m\", \"7days\"; sizes \"64KiB\", \"16MiB\", \"1GiB\", or as a number of bytes.
# Relative paths start from the directory in which the broker was started. An empty string means \"none\".
";

/// The annotated file.
#[must_use]
pub fn annotated() -> String {
    let mut text = HEAD.to_owned();
    for section in sections() {
        text.push('\n');
        lines(&mut text, "# ", &section.about);
        match section.example {
            Some(example) => example_entry(&mut text, &section, example),
            None => keys(&mut text, &section),
        }
        if let Some(after) = section.after {
            text.push('\n');
            text.push_str(after);
        }
    }
    text
}

fn lines(text: &mut String, prefix: &str, all: &[&str]) {
    for line in all {
        text.push_str(prefix);
        text.push_str(line.strip_prefix(' ').unwrap_or(line));
        text.push('\n');
    }
}

fn keys(text: &mut String, section: &Section) {
    if !section.header.is_empty() {
        text.push_str(section.header);
        text.push('\n');
    }
    for setting in &section.settings {
        lines(text, "# ", &setting.text);
        if setting.reload == Reload::FileAgain {
            // The text continues after the full stop.
            text.pop();
            text.push_str(" Reread on SIGHUP.\n");
        }
        if let Some(bounds) = &setting.bounds {
            bounds_behind(text, bounds);
        }
        match setting.shown {
            Some(value) => push(text, format_args!("{} = {value}\n", setting.key)),
            None => push(text, format_args!("#{} = {}\n", setting.key, setting.default)),
        }
    }
}

/// Appends the bounds to the text if they fit on the line, otherwise on a line of their own.
fn bounds_behind(text: &mut String, bounds: &str) {
    let last = text.trim_end().rsplit('\n').next().map_or(0, |line| line.chars().count());
    if last + bounds.len() + 3 <= LINE_CHARS && text.ends_with(".\n") {
        text.pop();
        push(text, format_args!(" ({bounds})\n"));
    } else {
        push(text, format_args!("# ({bounds})\n"));
    }
}

fn example_entry(text: &mut String, section: &Section, example: &str) {
    for setting in &section.settings {
        for (index, line) in setting.text.iter().enumerate() {
            let line = line.strip_prefix(' ').unwrap_or(line);
            match index {
                0 => push(text, format_args!("#   {}: {line}\n", setting.key)),
                _ => push(text, format_args!("#     {line}\n")),
            }
        }
    }
    push(text, format_args!("# {}\n", section.header));
    for line in example.lines() {
        push(text, format_args!("# {line}\n"));
    }
}

/// The part of `docs/configuration.md` between [`BEGIN`] and [`END`].
#[must_use]
pub fn documented() -> String {
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

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(arguments);
}
