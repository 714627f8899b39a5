//! The closed lists of what a theme can set: roles (meanings with a style) and glyphs (symbols of one cell).
//!
//! Adding one here is all it takes for theme files to know it; every glyph comes with its ASCII form.

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$item_doc:meta])* $item:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $kind { $($(#[$item_doc])* $item,)* }

        impl $kind {
            /// All of them, in order of declaration.
            pub const ALL: &[Self] = &[$(Self::$item,)*];

            /// The name in theme files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$item => $name,)* }
            }
        }
    };
}

named! {
    /// What a piece of the screen means.
    Role {
        Text = "text",
        Dim = "text.dim",
        Strong = "text.strong",
        Title = "pane.title",
        Border = "pane.border",
        Focus = "pane.focus",
        Selection = "selection",
        Key = "key",
        Header = "header",
        HeaderStrong = "header.strong",
        Good = "state.good",
        Warn = "state.warn",
        Bad = "state.bad",
        Info = "state.info",
        Bar = "meter.full",
        BarRest = "meter.rest",
        Chart = "chart",
    }
}

named! {
    /// A symbol of one cell.
    Glyph {
        Signed = "signed",
        Late = "late",
        Missed = "missed",
        Absent = "absent",
        Good = "good",
        Warn = "warn",
        Bad = "bad",
        Info = "info",
        BarFull = "bar-full",
        BarRest = "bar-rest",
        BarMark = "bar-mark",
        Inbound = "inbound",
        Outbound = "outbound",
        Ascending = "ascending",
        Descending = "descending",
        Cursor = "cursor",
        Own = "own",
        More = "more",
        Dot = "dot",
        Horizontal = "horizontal",
        Vertical = "vertical",
        TopLeft = "top-left",
        TopRight = "top-right",
        BottomLeft = "bottom-left",
        BottomRight = "bottom-right",
        Level1 = "level-1",
        Level2 = "level-2",
        Level3 = "level-3",
        Level4 = "level-4",
        Level5 = "level-5",
        Level6 = "level-6",
        Level7 = "level-7",
        Level8 = "level-8",
    }
}

impl Glyph {
    const LEVELS: [Self; 8] = [
        Self::Level1,
        Self::Level2,
        Self::Level3,
        Self::Level4,
        Self::Level5,
        Self::Level6,
        Self::Level7,
        Self::Level8,
    ];

    /// The bar of `eighths` (1 to 8) of a cell.
    pub fn level(eighths: usize) -> Self {
        Self::LEVELS.get(eighths.clamp(1, 8).saturating_sub(1)).copied().unwrap_or(Self::Level1)
    }

    /// The symbol, and the one for terminals without UTF-8.
    pub const fn symbols(self) -> (&'static str, &'static str) {
        match self {
            Self::Signed => ("●", "#"),
            Self::Late => ("◐", "+"),
            Self::Missed => ("○", "x"),
            Self::Absent => ("·", "."),
            Self::Good => ("●", "*"),
            Self::Warn => ("▲", "!"),
            Self::Bad => ("■", "X"),
            Self::Info => ("◆", "i"),
            Self::BarFull => ("█", "#"),
            Self::BarRest => ("░", "."),
            Self::BarMark => ("│", "|"),
            Self::Inbound => ("←", "<"),
            Self::Outbound => ("→", ">"),
            Self::Ascending => ("▲", "^"),
            Self::Descending => ("▼", "v"),
            Self::Cursor => ("▌", "_"),
            Self::Own => ("◆", "*"),
            Self::More => ("…", "~"),
            Self::Dot => ("·", "-"),
            Self::Horizontal => ("─", "-"),
            Self::Vertical => ("│", "|"),
            Self::TopLeft => ("┌", "+"),
            Self::TopRight => ("┐", "+"),
            Self::BottomLeft => ("└", "+"),
            Self::BottomRight => ("┘", "+"),
            Self::Level1 => ("▁", "."),
            Self::Level2 => ("▂", ":"),
            Self::Level3 => ("▃", "-"),
            Self::Level4 => ("▄", "="),
            Self::Level5 => ("▅", "+"),
            Self::Level6 => ("▆", "*"),
            Self::Level7 => ("▇", "%"),
            Self::Level8 => ("█", "#"),
        }
    }
}
