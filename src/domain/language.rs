//! The two languages of error texts.

/// The language of a caller's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::IntoStaticStr)]
pub enum Language {
    /// English.
    #[default]
    #[strum(serialize = "en")]
    English,
    /// Chinese: language tags that begin with `zh`.
    #[strum(serialize = "zh")]
    Chinese,
}

impl Language {
    /// Reads a language tag, or the first of a list of tags.
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
    fn a_tag_that_begins_with_zh_is_chinese() {
        for tag in ["zh", "zh-cn", "ZH-Hans", "zh-CN,zh;q=0.9,en;q=0.8", " zh"] {
            assert_eq!(Language::parse(tag), Language::Chinese, "{tag:?}");
        }
        for tag in ["en", "en-US", "", "z", "fr", "en,zh", "中文"] {
            assert_eq!(Language::parse(tag), Language::English, "{tag:?}");
        }
    }
}
