//! The first step: for each setting the text in force and where it came from. Flags win over the environment, that
//! over the file, that over the defaults. What a text means is not known here.

use super::catalogue::{self, Setting};
use super::fault::Fault;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Largest settings file that is read. A million `[[keys]]` of about 150 bytes would still fit.
const FILE_BYTES_MAX: u64 = 192 * 1_024 * 1_024;

/// Which defaults apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Production.
    Serve,
    /// Everything on this machine.
    Demo,
}

/// Where the text in force came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// The environment.
    Environment,
    /// The settings file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment => f.write_str("environment"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The settings that were given as flags, by name.
#[derive(Clone, Debug, Default)]
pub struct SettingFlags(BTreeMap<&'static str, String>);

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        catalogue::all().fold(command, |command, setting| {
            let Some(flag) = setting.flag else { return command };
            let help = format!("{} [{}] [env: {}]", setting.meaning, setting.bounds, setting.name);
            let value = if setting.port { "PORT" } else { "VALUE" };
            let argument = Arg::new(setting.name).long(flag).value_name(value).help(help).allow_hyphen_values(true);
            command.arg(argument.help_heading("Settings"))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in catalogue::all().filter(|setting| setting.flag.is_some()) {
            self.0.extend(matches.get_one::<String>(setting.name).map(|text| (setting.name, text.clone())));
        }
        Ok(())
    }
}

/// The flags that say where settings come from, and the settings given as flags.
#[derive(Clone, Debug, Default, Args)]
pub struct SettingArgs {
    /// Settings file (TOML): the names of the environment in lower case, and `[[keys]]`
    #[arg(long, env = "TB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Any free port for every port that is not set otherwise
    #[arg(long)]
    pub any_port: bool,
    /// Settings given one by one.
    #[command(flatten)]
    pub flags: SettingFlags,
}

/// The text in force of every setting.
#[derive(Debug)]
pub struct Layers {
    texts: BTreeMap<&'static str, (String, Origin)>,
    keys: Vec<toml::Value>,
    keys_origin: Origin,
}

impl Layers {
    /// Gathers the texts. What is wrong with the sources themselves is added to `faults`; a setting with such a fault
    /// stands at its next layer below.
    #[must_use]
    pub fn gather(
        profile: Profile,
        args: &SettingArgs,
        environment: impl Fn(&str) -> Option<OsString>,
        faults: &mut Vec<Fault>,
    ) -> Self {
        let mut layers = Self { texts: BTreeMap::new(), keys: Vec::new(), keys_origin: Origin::Default };
        let demo = profile == Profile::Demo;
        for setting in catalogue::all() {
            let default = setting.demo_default.filter(|_| demo).unwrap_or(setting.default);
            let default = if setting.port && args.any_port { "0" } else { default };
            layers.texts.insert(setting.name, (default.to_owned(), Origin::Default));
        }
        if let Some(path) = &args.config {
            layers.add_file(path, faults);
        }
        for setting in catalogue::all() {
            // An empty variable is how compose files and task definitions say "not set".
            match environment(setting.name).map(OsString::into_string) {
                Some(Ok(text)) if !text.trim().is_empty() => layers.set(setting, text, Origin::Environment),
                Some(Err(raw)) => faults.push(Fault::new(setting, &raw.to_string_lossy(), Origin::Environment)),
                Some(Ok(_)) | None => {}
            }
            if let Some(text) = args.flags.0.get(setting.name) {
                layers.set(setting, text.clone(), Origin::Flag);
            }
        }
        layers
    }

    fn set(&mut self, setting: &'static Setting, text: String, origin: Origin) {
        self.texts.insert(setting.name, (text.trim().to_owned(), origin));
    }

    fn add_file(&mut self, path: &Path, faults: &mut Vec<Fault>) {
        let origin = Origin::File(path.to_owned());
        let table = match read_table(path) {
            Ok(table) => table,
            Err(why) => return faults.push(Fault::of_file(path, &why)),
        };
        for (key, value) in table {
            if key == "keys" {
                self.keys_origin = origin.clone();
                match value {
                    toml::Value::Array(keys) => self.keys = keys,
                    other => faults.push(Fault::of_name("keys", &shown(&other), origin.clone(), "[[keys]] tables")),
                }
                continue;
            }
            let Some(setting) = catalogue::all().find(|setting| setting.key() == key) else {
                // The value may be a secret under a misspelt name.
                faults.push(Fault::of_name(&key, "…", origin.clone(), "a name that `config` shows, in lower case"));
                continue;
            };
            match text_of(&value) {
                Some(text) => self.set(setting, text, origin.clone()),
                None => faults.push(Fault::new(setting, &shown(&value), origin.clone())),
            }
        }
    }

    /// The text in force and its origin.
    #[must_use]
    pub fn text(&self, setting: &Setting) -> (&str, &Origin) {
        match self.texts.get(setting.name) {
            Some((text, origin)) => (text, origin),
            None => (setting.default, &Origin::Default),
        }
    }

    /// The `[[keys]]` of the file, and the file.
    #[must_use]
    pub fn keys(&self) -> (&[toml::Value], &Origin) {
        (&self.keys, &self.keys_origin)
    }
}

/// Reads the file as one TOML table.
fn read_table(path: &Path) -> Result<toml::Table, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{size} bytes; at most {FILE_BYTES_MAX} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // The library's message quotes the line, which may hold a secret: only its position and reason are told.
    text.parse::<toml::Table>().map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", error.message())
    })
}

/// A file's value as a message repeats it.
pub fn shown(value: &toml::Value) -> String {
    text_of(value).unwrap_or_else(|| format!("a TOML {}", value.type_str()))
}

/// A file's value as the text that the environment would hold. Lists are lists of texts.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) if items.is_empty() => Some("none".to_owned()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<String>> = items.iter().map(text_of).collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}
