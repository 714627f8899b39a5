//! The `masternode` program.

#[allow(dead_code)]
mod console;
#[allow(dead_code)]
mod keymap;
#[allow(dead_code)]
mod screens;
#[allow(dead_code)]
mod theme;
#[allow(dead_code)]
mod widgets;

fn main() {}
