//! From the command line and the configuration to the console's options.

use crate::cli::ScreenArgs;
use crate::console::ConsoleOptions;
use crate::theme;
use masternode::config::{ColorChoice, ConsoleConfig};

/// How the console looks: the command line overrules the configuration.
pub fn options(args: &ScreenArgs, config: &ConsoleConfig, title: &str) -> ConsoleOptions {
    let mut options = ConsoleOptions::new(title);
    options.theme = args.theme.clone().unwrap_or_else(|| config.theme.clone());
    options.color = args.color.map_or(theme::ColorChoice::Auto, choice);
    options.color_config = choice(config.color);
    options
}

fn choice(color: ColorChoice) -> theme::ColorChoice {
    match color {
        ColorChoice::Auto => theme::ColorChoice::Auto,
        ColorChoice::Truecolor => theme::ColorChoice::Truecolor,
        ColorChoice::Ansi256 => theme::ColorChoice::Ansi256,
        ColorChoice::Ansi16 => theme::ColorChoice::Ansi16,
        ColorChoice::Never => theme::ColorChoice::Never,
    }
}
