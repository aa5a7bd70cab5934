//! The writers' markup: a small part of Markdown to HTML in which everything a writer typed is escaped.
//!
//! Blocks: paragraphs, `##` and `###` headings, `-` lists, `>` quotes, fenced code. Inside: `**strong**`, `*emphasis*`,
//! `` `code` ``, `[links](https://…)` and `![pictures](/pictures/…)` of this blog. What does not fit is shown as typed.

use crate::picture::kind_of_name;
use maud::{Markup, html};

/// How far ahead the end of a span is looked for. Without it, a text of opening brackets takes its length squared.
const SPAN_BYTES_MAX: usize = 600;

/// Three lines of a list. The store hands out a little more, so that a cut word is never shown.
const EXCERPT_BYTES_MAX: usize = 240;

#[derive(Debug, PartialEq, Eq)]
enum Block<'a> {
    Paragraph(String),
    Heading(u8, &'a str),
    List(Vec<&'a str>),
    Quote(String),
    Code(String),
}

#[derive(Debug, PartialEq, Eq)]
enum Span<'a> {
    Text(&'a str),
    Strong(&'a str),
    Emphasis(&'a str),
    Code(&'a str),
    Link { label: &'a str, to: &'a str },
    Picture { alt: &'a str, from: &'a str },
}

pub(crate) fn render(text: &str) -> Markup {
    html! {
        @for block in blocks(text) {
            @match block {
                Block::Paragraph(text) => p { (inline(&text)) },
                Block::Heading(2, text) => h2 { (inline(text)) },
                Block::Heading(_, text) => h3 { (inline(text)) },
                Block::List(items) => ul { @for item in items { li { (inline(item)) } } },
                Block::Quote(text) => blockquote { p { (inline(&text)) } },
                Block::Code(text) => pre { code { (text) } },
            }
        }
    }
}

/// The beginning of a text without its signs, for lists; cut between two words.
pub(crate) fn excerpt(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|line| !line.starts_with("```")) {
        let line = ["## ", "### ", "- ", "> "].into_iter().find_map(|sign| line.strip_prefix(sign)).unwrap_or(line);
        for span in spans(line) {
            match span {
                Span::Text(text) | Span::Strong(text) | Span::Emphasis(text) | Span::Code(text) => out.push_str(text),
                Span::Link { label, .. } => out.push_str(label),
                Span::Picture { .. } => {}
            }
        }
        out.push(' ');
        if out.len() > EXCERPT_BYTES_MAX {
            let cut = &out[..out.floor_char_boundary(EXCERPT_BYTES_MAX)];
            let words = cut.rsplit_once(' ').map_or(cut, |(words, _)| words);
            return format!("{} …", words.trim());
        }
    }
    out.trim().to_owned()
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    // Whether the next line may go on with the block before it.
    let mut open = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_end();
        if line.starts_with("```") {
            let inside: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push(Block::Code(inside.join("\n")));
            open = false;
        } else if line.is_empty() {
            open = false;
        } else if let Some(text) = line.strip_prefix("## ") {
            blocks.push(Block::Heading(2, text));
            open = false;
        } else if let Some(text) = line.strip_prefix("### ") {
            blocks.push(Block::Heading(3, text));
            open = false;
        } else if let Some(item) = line.strip_prefix("- ") {
            match blocks.last_mut() {
                Some(Block::List(items)) if open => items.push(item),
                _ => blocks.push(Block::List(vec![item])),
            }
            open = true;
        } else if let Some(text) = line.strip_prefix("> ") {
            match blocks.last_mut() {
                Some(Block::Quote(before)) if open => go_on(before, text),
                _ => blocks.push(Block::Quote(text.to_owned())),
            }
            open = true;
        } else {
            match blocks.last_mut() {
                Some(Block::Paragraph(before)) if open => go_on(before, line),
                _ => blocks.push(Block::Paragraph(line.to_owned())),
            }
            open = true;
        }
    }
    blocks
}

fn go_on(before: &mut String, line: &str) {
    before.push('\n');
    before.push_str(line);
}

fn inline(text: &str) -> Markup {
    html! {
        @for span in spans(text) {
            @match span {
                Span::Text(text) => (text),
                Span::Strong(text) => strong { (text) },
                Span::Emphasis(text) => em { (text) },
                Span::Code(text) => code { (text) },
                Span::Link { label, to } => a href=(to) rel="nofollow ugc noopener" { (label) },
                Span::Picture { alt, from } => img src=(from) alt=(alt) loading="lazy";,
            }
        }
    }
}

fn spans(text: &str) -> Vec<Span<'_>> {
    let mut found = Vec::new();
    let (mut begun, mut at) = (0, 0);
    while let Some(offset) = text[at..].find(['`', '*', '[', '!']) {
        let sign = at + offset;
        let window = &text[sign..text.floor_char_boundary(sign + SPAN_BYTES_MAX)];
        if let Some((span, length)) = span(window) {
            if begun < sign {
                found.push(Span::Text(&text[begun..sign]));
            }
            found.push(span);
            begun = sign + length;
            at = begun;
        } else {
            at = sign + 1;
        }
    }
    if begun < text.len() {
        found.push(Span::Text(&text[begun..]));
    }
    found
}

/// The span that begins with the first sign of `text`, and its length.
fn span(text: &str) -> Option<(Span<'_>, usize)> {
    if let Some(rest) = text.strip_prefix("![") {
        let (alt, from, length) = bracketed(rest)?;
        let is_ours = from.strip_prefix("/pictures/").is_some_and(|name| kind_of_name(name).is_some());
        return is_ours.then_some((Span::Picture { alt, from }, length + 2));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (label, to, length) = bracketed(rest)?;
        let is_safe =
            to.starts_with("https://") || to.starts_with("http://") || (to.starts_with('/') && !to.starts_with("//"));
        return (is_safe && !to.contains(char::is_whitespace)).then_some((Span::Link { label, to }, length + 1));
    }
    let sign = ["**", "*", "`"].into_iter().find(|sign| text.starts_with(sign))?;
    let rest = &text[sign.len()..];
    let inside = &rest[..rest.find(sign)?];
    // A star between blanks is a star: 2 * 3 * 4.
    let is_span =
        !inside.is_empty() && !inside.starts_with(char::is_whitespace) && !inside.ends_with(char::is_whitespace);
    let span = match sign {
        "**" => Span::Strong(inside),
        "*" => Span::Emphasis(inside),
        _ => Span::Code(inside),
    };
    is_span.then_some((span, inside.len() + 2 * sign.len()))
}

/// `label](to)` with its length.
fn bracketed(text: &str) -> Option<(&str, &str, usize)> {
    let middle = text.find("](")?;
    let end = middle + text[middle..].find(')')?;
    Some((&text[..middle], &text[middle + 2..end], end + 1))
}

#[cfg(test)]
mod tests {
    use super::{excerpt, render};

    fn check(text: &str, expected: &str) {
        assert_eq!(render(text).into_string(), expected);
    }

    #[test]
    fn blocks() {
        check("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>");
        check("## Title\r\n### Part\r\ntext", "<h2>Title</h2><h3>Part</h3><p>text</p>");
        check("- a\n- b\n\n- c", "<ul><li>a</li><li>b</li></ul><ul><li>c</li></ul>");
        check("> a\n> b", "<blockquote><p>a\nb</p></blockquote>");
        check("```\n**no** <b>\n```\nafter", "<pre><code>**no** &lt;b&gt;</code></pre><p>after</p>");
        check("```\nopen", "<pre><code>open</code></pre>");
        check("", "");
    }

    #[test]
    fn spans() {
        check("**a** *b* `c*d*`", "<p><strong>a</strong> <em>b</em> <code>c*d*</code></p>");
        check("2 * 3 * 4 and **", "<p>2 * 3 * 4 and **</p>");
        check("[a](/posts/1)!", "<p><a href=\"/posts/1\" rel=\"nofollow ugc noopener\">a</a>!</p>");
        check(
            "![a \"b\"](/pictures/0123456789abcdef.png)",
            "<p><img src=\"/pictures/0123456789abcdef.png\" alt=\"a &quot;b&quot;\" loading=\"lazy\"></p>",
        );
    }

    #[test]
    fn nothing_a_writer_types_becomes_markup() {
        check("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>");
        check("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>");
        check("[x](//evil.example)", "<p>[x](//evil.example)</p>");
        check(
            "![x](https://evil.example/a.png)",
            "<p>!<a href=\"https://evil.example/a.png\" rel=\"nofollow ugc noopener\">x</a></p>",
        );
        let quoted = render("[x](https://a.example/\"onclick=\"alert(1))").into_string();
        assert!(quoted.contains("&quot;onclick=&quot;") && !quoted.contains("\"onclick"), "{quoted}");
    }

    #[test]
    fn a_text_of_signs_ends() {
        for sign in ["[", "![", "*", "**", "`", "é*", "[](", "- ", "> "] {
            let text = sign.repeat(200_000 / sign.len());
            assert!(!render(&text).into_string().is_empty());
        }
    }

    #[test]
    fn lists_show_whole_words_only() {
        assert_eq!(excerpt("## A *b*\n- [c](/d) ![e](/pictures/0123456789abcdef.png)\n```\nf"), "A b c  f");
        let long = excerpt(&"wörter ".repeat(60));
        assert!(long.ends_with("wörter …") && long.len() < 250, "{long}");
    }
}
