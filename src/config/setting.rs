//! The definition of a setting: the macro that generates, from the table in `table`, the structs that the file is read
//! into, their defaults and checks, the limits of the core, and the descriptions ([`Section`], [`Setting`]) for
//! `config/petrel.toml` and `docs/configuration.md`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::check::Checker;
use crate::config::value::{FileMode, Period, Seconds, Size, Switch, TextList};

/// A section of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its header in the file: `[limits]`, `[[listener]]`; empty for the keys before the first section.
    pub(crate) header: &'static str,
    /// Its description, in lines.
    pub(crate) about: Vec<&'static str>,
    /// Its keys, in the order of the file.
    pub(crate) settings: Vec<Setting>,
    /// For a list that is empty by default: an example entry, without its header.
    pub(crate) example: Option<&'static str>,
    /// Additional text after it in the shipped file.
    pub(crate) after: Option<&'static str>,
}

/// One key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its name.
    pub(crate) key: &'static str,
    /// Its description, in lines.
    pub(crate) text: Vec<&'static str>,
    /// The kind of value: size, duration, count and so on.
    pub(crate) unit: &'static str,
    /// Its default, in TOML.
    pub(crate) default: String,
    /// The bounds in words, if there are any.
    pub(crate) bounds: Option<String>,
    /// When a change takes effect.
    pub(crate) reload: Reload,
    /// The value in the shipped file, in TOML, if it is set there.
    pub(crate) shown: Option<&'static str>,
}

/// When a changed setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Reload {
    /// At the next start.
    #[default]
    Restart,
    /// A reload rereads the file that it names; another name needs a restart.
    FileAgain,
}

impl Section {
    /// The path of its keys: `limits`, `listener.tls`; empty at the top of the file.
    #[must_use]
    pub(crate) fn path(&self) -> &'static str {
        self.header.trim_matches(['[', ']'])
    }

    /// Whether it may be repeated.
    #[must_use]
    pub(crate) fn is_list(&self) -> bool {
        self.header.starts_with("[[")
    }
}

/// A value that can be written in the file.
pub(crate) trait Written: Serialize {
    /// What kind of value it is, for people.
    const UNIT: &'static str;

    /// Its TOML.
    fn written(&self) -> String {
        toml::Value::try_from(self).map(|value| value.to_string()).unwrap_or_default()
    }
}

macro_rules! written {
    ($($type:ty: $unit:literal),* $(,)?) => {
        $(impl Written for $type { const UNIT: &'static str = $unit; })*
    };
}
pub(crate) use written;

written! {
    bool: "yes or no",
    u64: "count",
    String: "text",
    Vec<String>: "list of strings",
    TextList: "list of strings, or one",
    Period: "duration",
    Seconds: "duration in whole seconds",
    FileMode: "octal, as a string",
    Switch: "true, false or \"auto\"",
}

impl Written for Size {
    const UNIT: &'static str = "size";

    fn written(&self) -> String {
        match self.0 {
            0 => "0".to_owned(),
            _ => format!("\"{self}\""),
        }
    }
}

impl<V: Serialize> Written for BTreeMap<String, V> {
    const UNIT: &'static str = "table";

    fn written(&self) -> String {
        let entries = self.iter().map(|(key, value)| {
            let value = toml::Value::try_from(value).map(|value| value.to_string());
            format!("\"{key}\" = {}", value.unwrap_or_default())
        });
        let entries: Vec<_> = entries.collect();
        match entries.is_empty() {
            true => "{}".to_owned(),
            false => format!("{{ {} }}", entries.join(", ")),
        }
    }
}

/// A part of the file whose values have bounds.
pub(crate) trait Bound {
    /// Reports every value out of bounds. `path` leads to this part and ends with a dot, unless it is empty.
    fn check_bounds(&self, path: &str, checker: &mut Checker<'_>);
}

impl<T: Bound> Bound for Vec<T> {
    fn check_bounds(&self, path: &str, checker: &mut Checker<'_>) {
        let path = path.trim_end_matches('.');
        for (index, entry) in self.iter().enumerate() {
            entry.check_bounds(&format!("{path}[{index}]."), checker);
        }
    }
}

impl<T: Bound> Bound for Option<T> {
    fn check_bounds(&self, path: &str, checker: &mut Checker<'_>) {
        if let Some(part) = self {
            part.check_bounds(path, checker);
        }
    }
}

/// Defines the whole file. See `table` for the contents.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])*
        $header:literal $name:ident $place:ident {
            $(
                $(#[doc = $text:literal])*
                $key:ident: $type:ty = $default:expr
                    $(, [$bounds:expr])?
                    $(, limits.$limit:ident)?
                    $(, accept.$accept:ident)?
                    $(, store.$store:ident)?
                    $(, reload = $reload:ident)?
                    $(, shown = $shown:literal)?;
            )*
        }
        $(+ { $( $(#[$attribute:meta])* $child:ident: $part:ty ),* $(,)? })?
        $(example $example:literal)?
        $(after $after:literal)?
    )*) => {
        $(
            #[doc = concat!("The section `", $header, "` as it is written.")]
            #[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $name {
                $(
                    #[doc = concat!("`", stringify!($key), "`: its entry in the table says what it means.")]
                    pub $key: $type,
                )*
                $($(
                    #[doc = concat!("What stands under `", stringify!($child), "`.")]
                    $(#[$attribute])*
                    pub $child: $part,
                )*)?
            }

            impl Default for $name {
                fn default() -> Self {
                    Self { $($key: $default,)* $($($child: Default::default(),)*)? }
                }
            }

            impl Bound for $name {
                fn check_bounds(&self, path: &str, checker: &mut Checker<'_>) {
                    $($(
                        let key = format!("{path}{}", stringify!($key));
                        checker.bounds(&key, self.$key, &Bounds::from($bounds));
                    )?)*
                    $($(
                        self.$child.check_bounds(&format!("{path}{}.", stringify!($child)), checker);
                    )*)?
                    let _used_where_anything_has_bounds = (path, checker);
                }
            }
        )*

        /// Every section with every key, in the order of the file.
        #[must_use]
        pub(crate) fn sections() -> Vec<Section> {
            vec![$({
                let default = $name::default();
                let settings = vec![$(
                    Setting {
                        key: stringify!($key),
                        text: vec![$($text),*],
                        unit: <$type as Written>::UNIT,
                        default: default.$key.written(),
                        bounds: None$(.or(Some(Bounds::<$type>::from($bounds).to_string())))?,
                        reload: Reload::default()$(.max(Reload::$reload))?,
                        shown: None$(.or(Some($shown)))?,
                    }
                ),*];
                Section {
                    header: $header,
                    about: vec![$($about),*],
                    settings,
                    example: None$(.or(Some($example)))?,
                    after: None$(.or(Some($after)))?,
                }
            }),*]
        }

        impl File {
            /// The limits of the core; `rest` are those derived from more than one value of the file.
            pub(crate) fn core_limits(&self, rest: ComposedLimits) -> Limits {
                Limits {
                    $($($($limit: self.$place.$key.clone().into_limit(),)?)*)*
                    max_session_expiry_seconds: rest.max_session_expiry_seconds,
                    crowded_wait: CROWDED_WAIT,
                    durability: rest.durability,
                    topic_durability: rest.topic_durability,
                    queue: rest.queue,
                    topic_queue: rest.topic_queue,
                }
            }

            /// The limits of accepting Network Connections.
            pub(crate) fn accept_limits(&self) -> AcceptLimits {
                AcceptLimits { $($($($accept: self.$place.$key.clone().into_limit(),)?)*)* }
            }

            /// The settings of the store.
            pub(crate) fn store_settings(&self) -> StoreSettings {
                StoreSettings {
                    $($($($store: self.$place.$key.clone().into_limit(),)?)*)*
                    ..StoreSettings::new(&self.data_dir)
                }
            }
        }
    };
}
pub(crate) use settings;
