//! The two languages that refusals are written in.

/// What language a caller reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// The gateway door's default.
    #[default]
    English,
    /// Anything that begins with `zh`.
    Chinese,
}

impl Language {
    /// The tag that it is stored under.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }

    /// Reads a language tag, or a list of them of which the first counts.
    pub fn parse(tag: &str) -> Self {
        let tag = tag.trim_start().as_bytes();
        match tag.get(..2) {
            Some(start) if start.eq_ignore_ascii_case(b"zh") => Self::Chinese,
            _ => Self::English,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_begins_with_zh_is_chinese() {
        for tag in ["zh", "zh-cn", "ZH-Hans", "zh-CN,zh;q=0.9,en;q=0.8", " zh"] {
            assert_eq!(Language::parse(tag), Language::Chinese, "{tag:?}");
        }
        for tag in ["en", "en-US", "", "z", "fr", "en,zh", "中文"] {
            assert_eq!(Language::parse(tag), Language::English, "{tag:?}");
        }
    }
}
