//! Themes: TOML data resolved to one style a role and one symbol a glyph, for the terminal's colours.
//!
//! A theme file has `name`, `extends`, `[palette]`, `[roles]`, `[ansi16]` and `[glyphs]`. The
//! shipped ones are part of the program; a user's file works the same and is refused whole, with
//! file, line and reason. Roles are a closed list ([`Role`]): a screen cannot ask for a colour, only
//! for a meaning. No terminal is touched here; [`Environment`] is passed in.

pub mod roles;

use crate::theme::roles::{Glyph, Role};
use ratatui::style::{Color, Modifier, Style};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Longest chain of `extends`; longer ones are loops.
const EXTENDS_MAX: usize = 8;
/// Most theme files read from a user's directory, so that a wrong directory cannot stall the start.
const USER_THEMES_MAX: usize = 64;
/// Largest theme file, in bytes.
const THEME_BYTES_MAX: u64 = 64 << 10;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorMode {
    Truecolor,
    Ansi256,
    Ansi16,
    /// No colour; the theme `mono` whatever was asked for.
    Never,
}

/// What was asked for on the command line or in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorChoice {
    #[default]
    Auto,
    Truecolor,
    Ansi256,
    Ansi16,
    Never,
}

impl ColorChoice {
    fn mode(self) -> Option<ColorMode> {
        match self {
            Self::Auto => None,
            Self::Truecolor => Some(ColorMode::Truecolor),
            Self::Ansi256 => Some(ColorMode::Ansi256),
            Self::Ansi16 => Some(ColorMode::Ansi16),
            Self::Never => Some(ColorMode::Never),
        }
    }
}

impl std::str::FromStr for ColorChoice {
    type Err = ThemeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "truecolor" => Ok(Self::Truecolor),
            "ansi256" => Ok(Self::Ansi256),
            "ansi16" => Ok(Self::Ansi16),
            "never" => Ok(Self::Never),
            _ => Err(ThemeError::Color(text.chars().take(40).collect())),
        }
    }
}

/// The environment variables that decide about colours and symbols.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub no_color: Option<String>,
    pub colorterm: Option<String>,
    pub term: Option<String>,
    /// The first set of `LC_ALL`, `LC_CTYPE` and `LANG`.
    pub locale: Option<String>,
    pub ssh: bool,
}

impl Environment {
    /// Reads the environment of this process.
    pub fn of_process() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            no_color: variable("NO_COLOR"),
            colorterm: variable("COLORTERM"),
            term: variable("TERM"),
            locale: variable("LC_ALL").or_else(|| variable("LC_CTYPE")).or_else(|| variable("LANG")),
            ssh: variable("SSH_CONNECTION").is_some(),
        }
    }

    /// The colours to use: command line, then `NO_COLOR`, then configuration, then what the terminal says.
    pub fn color_mode(&self, flag: ColorChoice, config: ColorChoice) -> ColorMode {
        if let Some(mode) = flag.mode() {
            return mode;
        }
        if self.no_color.is_some() {
            return ColorMode::Never;
        }
        config.mode().unwrap_or_else(|| self.terminal_colors())
    }

    fn terminal_colors(&self) -> ColorMode {
        let term = self.term.as_deref().unwrap_or("dumb");
        let colorterm = self.colorterm.as_deref().unwrap_or_default();
        if term == "dumb" {
            ColorMode::Never
        } else if matches!(colorterm, "truecolor" | "24bit") || term.ends_with("-direct") {
            ColorMode::Truecolor
        } else if term.contains("256color") {
            ColorMode::Ansi256
        } else {
            ColorMode::Ansi16
        }
    }

    /// Whether symbols beyond ASCII are safe.
    pub fn is_utf8(&self) -> bool {
        let locale = self.locale.as_deref().unwrap_or_default().to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    }
}

/// A theme or colour setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ThemeError {
    #[error("`{0}` is not a colour mode: use auto, truecolor, ansi256, ansi16 or never")]
    Color(String),
    #[error("theme `{name}` is unknown: use one of {known}")]
    Unknown { name: String, known: String },
    #[error("{file}: cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("{file}:{line}: {reason}")]
    Invalid { file: String, line: usize, reason: String },
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ThemeFile {
    name: Spanned<String>,
    extends: Option<Spanned<String>>,
    #[serde(default)]
    palette: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    roles: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    ansi16: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    glyphs: BTreeMap<String, Spanned<String>>,
}

/// A value of a theme file with its line, for errors that surface later.
#[derive(Clone, Debug)]
struct Value {
    text: String,
    line: usize,
}

/// A theme as written, not yet resolved.
#[derive(Clone, Debug)]
pub struct ThemeSource {
    pub name: String,
    file: String,
    extends: Option<Value>,
    palette: BTreeMap<String, Value>,
    roles: BTreeMap<String, Value>,
    ansi16: BTreeMap<String, Value>,
    glyphs: BTreeMap<String, Value>,
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

impl ThemeSource {
    /// Parses a theme; `file` is named in errors.
    ///
    /// # Errors
    /// [`ThemeError::Invalid`] with the line.
    pub fn parse(file: &str, text: &str) -> Result<Self, ThemeError> {
        let invalid = |line, reason: String| ThemeError::Invalid { file: file.to_owned(), line, reason };
        let parsed: ThemeFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            invalid(line, error.message().to_owned())
        })?;
        let value = |spanned: Spanned<String>| Value {
            line: line_of(text, spanned.span().start),
            text: spanned.into_inner(),
        };
        let table = |table: BTreeMap<String, Spanned<String>>| {
            table.into_iter().map(|(key, spanned)| (key, value(spanned))).collect::<BTreeMap<_, _>>()
        };
        let source = Self {
            name: parsed.name.into_inner(),
            file: file.to_owned(),
            extends: parsed.extends.map(value),
            palette: table(parsed.palette),
            roles: table(parsed.roles),
            ansi16: table(parsed.ansi16),
            glyphs: table(parsed.glyphs),
        };
        let role = |name: &str| Role::ALL.iter().any(|role| role.name() == name);
        let glyph = |name: &str| Glyph::ALL.iter().any(|glyph| glyph.name() == name);
        if let Some((key, value)) = source.roles.iter().chain(&source.ansi16).find(|(key, _)| !role(key)) {
            return Err(invalid(value.line, format!("`{key}` is not a role of the console")));
        }
        for (key, value) in &source.glyphs {
            if !glyph(key) {
                return Err(invalid(value.line, format!("`{key}` is not a glyph of the console")));
            }
            let single = ratatui::text::Span::raw(value.text.as_str()).width() == 1;
            if !single || value.text.chars().count() != 1 {
                let reason = format!("glyph `{key}` is not one character of one cell");
                return Err(invalid(value.line, reason));
            }
        }
        Ok(source)
    }
}

/// A theme resolved for a terminal: what the screens draw with.
#[derive(Clone, Debug)]
pub struct Look {
    pub name: String,
    pub ascii: bool,
    styles: Vec<Style>,
    glyphs: Vec<String>,
}

impl Look {
    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        self.styles.get(role as usize).copied().unwrap_or_default()
    }

    /// The symbol of a glyph.
    pub fn glyph(&self, glyph: Glyph) -> &str {
        self.glyphs.get(glyph as usize).map_or(" ", String::as_str)
    }
}

/// All themes at hand.
#[derive(Debug)]
pub struct Themes {
    sources: Vec<ThemeSource>,
}

impl Themes {
    /// The themes that are part of the program.
    ///
    /// # Errors
    /// Never for the shipped files, which a test loads.
    pub fn shipped() -> Result<Self, ThemeError> {
        let sources = [
            ("themes/dark.toml", include_str!("../themes/dark.toml")),
            ("themes/light.toml", include_str!("../themes/light.toml")),
            ("themes/high-contrast.toml", include_str!("../themes/high-contrast.toml")),
            ("themes/okabe.toml", include_str!("../themes/okabe.toml")),
            ("themes/ansi16.toml", include_str!("../themes/ansi16.toml")),
            ("themes/mono.toml", include_str!("../themes/mono.toml")),
            ("themes/nord.toml", include_str!("../themes/nord.toml")),
            ("themes/gruvbox.toml", include_str!("../themes/gruvbox.toml")),
            ("themes/solarized-dark.toml", include_str!("../themes/solarized-dark.toml")),
            ("themes/solarized-light.toml", include_str!("../themes/solarized-light.toml")),
        ]
        .into_iter()
        .map(|(file, text)| ThemeSource::parse(file, text))
        .collect::<Result<_, _>>()?;
        Ok(Self { sources })
    }

    /// Adds the `*.toml` of a user's directory; one of the same name replaces a shipped one. Files
    /// that cannot be used are left out and returned as errors. A missing directory is no error.
    pub fn add_directory(&mut self, directory: &Path) -> Vec<ThemeError> {
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .take(USER_THEMES_MAX)
            .collect();
        files.sort();
        let mut errors = Vec::new();
        for path in files {
            match read_theme(&path) {
                Ok(source) => {
                    let previous = self.sources.clone();
                    self.sources.retain(|known| known.name != source.name);
                    let name = source.name.clone();
                    self.sources.push(source);
                    // A theme is usable only if it resolves, for colours and for sixteen colours.
                    let checked = [ColorMode::Truecolor, ColorMode::Ansi16]
                        .into_iter()
                        .try_for_each(|mode| self.look(&name, mode, false).map(|_| ()));
                    if let Err(error) = checked {
                        self.sources = previous;
                        errors.push(error);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Names in the order of cycling.
    pub fn names(&self) -> Vec<String> {
        self.sources.iter().map(|source| source.name.clone()).collect()
    }

    fn source(&self, name: &str) -> Option<&ThemeSource> {
        self.sources.iter().find(|source| source.name == name)
    }

    /// Resolves a theme.
    ///
    /// # Errors
    /// [`ThemeError`] when the theme is unknown or names colours that do not exist.
    pub fn look(&self, name: &str, mode: ColorMode, ascii: bool) -> Result<Look, ThemeError> {
        let unknown = || ThemeError::Unknown { name: name.to_owned(), known: self.names().join(", ") };
        let asked = self.source(name).ok_or_else(unknown)?;
        let used = if mode == ColorMode::Never { self.source("mono").ok_or_else(unknown)? } else { asked };
        let chain = self.chain(used)?;
        let overlay = |table: fn(&ThemeSource) -> &BTreeMap<String, Value>| {
            let mut merged: BTreeMap<&str, (&ThemeSource, &Value)> = BTreeMap::new();
            for source in chain.iter().rev() {
                merged.extend(table(source).iter().map(|(key, value)| (key.as_str(), (*source, value))));
            }
            merged
        };
        let palette = overlay(|source| &source.palette);
        let roles =
            if mode == ColorMode::Ansi16 { overlay(|source| &source.ansi16) } else { overlay(|s| &s.roles) };
        let mut styles = Vec::with_capacity(Role::ALL.len());
        for role in Role::ALL {
            styles.push(resolve_role(*role, used, &roles, &palette, mode)?);
        }
        let own_glyphs = overlay(|source| &source.glyphs);
        let glyphs = Glyph::ALL
            .iter()
            .map(|glyph| match own_glyphs.get(glyph.name()) {
                Some((_, value)) if !ascii || value.text.is_ascii() => value.text.clone(),
                _ if ascii => glyph.symbols().1.to_owned(),
                _ => glyph.symbols().0.to_owned(),
            })
            .collect();
        Ok(Look { name: asked.name.clone(), ascii, styles, glyphs })
    }

    /// The theme and its ancestors, nearest first.
    fn chain<'a>(&'a self, theme: &'a ThemeSource) -> Result<Vec<&'a ThemeSource>, ThemeError> {
        let mut chain = vec![theme];
        let mut current = theme;
        while let Some(parent) = &current.extends {
            let invalid = |reason: String| ThemeError::Invalid {
                file: current.file.clone(),
                line: parent.line,
                reason,
            };
            if chain.len() >= EXTENDS_MAX {
                return Err(invalid("`extends` forms a loop or is nested too deeply".to_owned()));
            }
            current = self.source(&parent.text).ok_or_else(|| {
                invalid(format!("`extends` names `{}`, which is not a known theme", parent.text))
            })?;
            chain.push(current);
        }
        Ok(chain)
    }
}

fn read_theme(path: &Path) -> Result<ThemeSource, ThemeError> {
    let file = path.display().to_string();
    let unreadable = |reason: String| ThemeError::Unreadable { file: file.clone(), reason };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > THEME_BYTES_MAX {
        return Err(unreadable(format!("{size} bytes, a theme has at most {THEME_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    ThemeSource::parse(&file, &text)
}

type Table<'a> = BTreeMap<&'a str, (&'a ThemeSource, &'a Value)>;

fn resolve_role(
    role: Role,
    theme: &ThemeSource,
    roles: &Table<'_>,
    palette: &Table<'_>,
    mode: ColorMode,
) -> Result<Style, ThemeError> {
    let mut path = role.name();
    let found = loop {
        match (roles.get(path), path.rsplit_once('.')) {
            (Some(found), _) => break Some(found),
            (None, Some((parent, _))) => path = parent,
            (None, None) => break roles.get(Role::Text.name()),
        }
    };
    let Some((source, value)) = found else {
        let reason = "role `text` is missing".to_owned();
        return Err(ThemeError::Invalid { file: theme.file.clone(), line: 1, reason });
    };
    parse_style(&value.text, palette, mode).map_err(|reason| ThemeError::Invalid {
        file: source.file.clone(),
        line: value.line,
        reason: format!("role `{}`: {reason}", role.name()),
    })
}

fn parse_style(text: &str, palette: &Table<'_>, mode: ColorMode) -> Result<Style, String> {
    let mut style = Style::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let modifier = match word {
            "bold" => Modifier::BOLD,
            "dim" => Modifier::DIM,
            "italic" => Modifier::ITALIC,
            "underlined" => Modifier::UNDERLINED,
            "reversed" => Modifier::REVERSED,
            "on" => {
                let name = words.next().ok_or("`on` without a colour after it")?;
                style = style.bg(parse_color(name, palette, mode)?);
                continue;
            }
            name => {
                style = style.fg(parse_color(name, palette, mode)?);
                continue;
            }
        };
        style = style.add_modifier(modifier);
    }
    // Drawn over something else, a role replaces its modifiers rather than adding to them.
    Ok(style.remove_modifier(Modifier::all().difference(style.add_modifier)))
}

fn parse_color(name: &str, palette: &Table<'_>, mode: ColorMode) -> Result<Color, String> {
    if name == "default" {
        return Ok(Color::Reset);
    }
    if mode == ColorMode::Ansi16 {
        return ansi_color(name).ok_or_else(|| format!("`{name}` is not one of the sixteen colours"));
    }
    let text = palette.get(name).map_or(name, |(_, value)| value.text.as_str());
    let Some((red, green, blue)) = parse_rgb(text) else {
        // One of the terminal's own, if the palette does not define it otherwise.
        let unknown =
            || format!("`{text}` is neither a colour of the palette nor one of the sixteen nor #rrggbb");
        return ansi_color(text).ok_or_else(unknown);
    };
    Ok(match mode {
        ColorMode::Truecolor => Color::Rgb(red, green, blue),
        _ => Color::Indexed(nearest_indexed(red, green, blue)),
    })
}

fn parse_rgb(text: &str) -> Option<(u8, u8, u8)> {
    let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
    let value = u32::from_str_radix(digits, 16).ok()?;
    let [_, red, green, blue] = value.to_be_bytes();
    Some((red, green, blue))
}

fn ansi_color(name: &str) -> Option<Color> {
    Some(match name {
        "black" => Color::Black,
        "red" => Color::Red,
        "green" => Color::Green,
        "yellow" => Color::Yellow,
        "blue" => Color::Blue,
        "magenta" => Color::Magenta,
        "cyan" => Color::Cyan,
        "gray" => Color::Gray,
        "darkgray" => Color::DarkGray,
        "lightred" => Color::LightRed,
        "lightgreen" => Color::LightGreen,
        "lightyellow" => Color::LightYellow,
        "lightblue" => Color::LightBlue,
        "lightmagenta" => Color::LightMagenta,
        "lightcyan" => Color::LightCyan,
        "white" => Color::White,
        _ => return None,
    })
}

/// Nearest of the 6×6×6 cube and the grey ramp of the 256 colours, by squared distance.
fn nearest_indexed(red: u8, green: u8, blue: u8) -> u8 {
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    let distance = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
    let nearest =
        |value: u8| (0u8..).zip(STEPS).min_by_key(|(_, step)| distance(value, *step)).unwrap_or((0, 0));
    let ((r, rv), (g, gv), (b, bv)) = (nearest(red), nearest(green), nearest(blue));
    let cube = (distance(red, rv) + distance(green, gv) + distance(blue, bv), 16 + 36 * r + 6 * g + b);
    let grey = (0u8..24).map(|index| {
        let value = 8 + 10 * index;
        (distance(red, value) + distance(green, value) + distance(blue, value), 232 + index)
    });
    grey.chain([cube]).min().map_or(cube.1, |(_, index)| index)
}

#[cfg(test)]
mod tests;
