//! Generates `config/petrel.toml` from the table of settings, with every key, its default and a comment. A test in
//! `shipped` checks that the file is up to date, and rewrites it on request (`make settings`).

use std::fmt::Write;

use crate::config::setting::{Reload, Section};
use crate::config::table::sections;

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

/// Appends formatted text.
pub(super) fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(arguments);
}
