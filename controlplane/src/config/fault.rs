//! What is wrong with a setting, said so that it can be mended: name, value, where it came from, bounds, meaning.

use super::catalogue::Setting;
use super::layers::Origin;
use std::fmt;
use std::path::Path;

/// Longest value that a message repeats, in characters: enough to recognise it.
const SHOWN_VALUE_MAX: usize = 80;

/// One bad setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name in the environment, or the name in the file that nothing has.
    pub name: String,
    /// The refused value; secrets are masked.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// What is allowed.
    pub bounds: String,
    /// What the setting does.
    pub meaning: String,
}

impl Fault {
    /// `setting` cannot be `value`.
    #[must_use]
    pub fn new(setting: &Setting, value: &str, origin: Origin) -> Self {
        Self {
            name: setting.name.to_owned(),
            value: shortened(&shown(setting, value)),
            origin,
            bounds: setting.bounds.to_owned(),
            meaning: setting.meaning.to_owned(),
        }
    }

    /// Something in a file that belongs to no plain setting.
    #[must_use]
    pub fn of_name(name: &str, value: &str, origin: Origin, bounds: &str) -> Self {
        let meaning =
            if name.starts_with("keys") { "the API keys that are admitted" } else { "there is no such setting" };
        Self {
            name: name.to_owned(),
            value: shortened(value),
            origin,
            bounds: bounds.to_owned(),
            meaning: meaning.to_owned(),
        }
    }

    /// The settings file cannot be read.
    #[must_use]
    pub fn of_file(path: &Path, why: &str) -> Self {
        Self {
            name: "--config".to_owned(),
            value: path.display().to_string(),
            origin: Origin::Flag,
            bounds: format!("a readable TOML file ({why})"),
            meaning: "the settings file".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, origin, bounds, meaning } = self;
        write!(f, "{name} = {value:?} (from {origin}) is refused. Allowed: {bounds}. Meaning: {meaning}.")
    }
}

/// A setting's value as it may be shown: neither a secret nor an address with a user or a password in it, wherever that
/// was put.
#[must_use]
pub fn shown(setting: &Setting, value: &str) -> String {
    if setting.secret || value.contains('@') { masked(value) } else { value.to_owned() }
}

/// What is shown in a secret's place.
#[must_use]
pub fn masked(value: &str) -> String {
    if value.is_empty() { String::new() } else { "********".to_owned() }
}

fn shortened(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN_VALUE_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    shown
}
