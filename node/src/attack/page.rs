//! A page with the pictures: one file, nothing fetched from anywhere.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use color_eyre::eyre::Result;
use perturb_challenge::pixels::Pixels;

use super::outcome::{Outcome, Totals};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;\
color:#1b1b1b;background:#fff}h1{font-size:1.4rem}section{border-top:1px solid #ddd;padding:1rem 0}\
figure{display:inline-block;margin:0 1rem .5rem 0}figcaption{font-size:.85rem;color:#555}\
img{width:16rem;max-width:100%;image-rendering:pixelated;display:block;background:#888}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}section{border-color:#444}\
figcaption{color:#aaa}}";

/// Text as HTML: file names are other people's.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

fn figure(out: &mut String, picture: &Pixels, caption: &str) -> Result<()> {
    let png = STANDARD.encode(picture.encode_png()?);
    writeln!(
        out,
        "<figure><img src=\"data:image/png;base64,{png}\" width=\"{}\" height=\"{}\" alt=\"{caption}\">\
         <figcaption>{caption}</figcaption></figure>",
        picture.width, picture.height
    )?;
    Ok(())
}

/// A page in the making: pictures are kept only as their bytes in it.
#[derive(Default)]
pub struct Page {
    sections: String,
}

impl Page {
    /// One more image.
    ///
    /// # Errors
    /// A picture that cannot be encoded.
    pub fn add(&mut self, o: &Outcome) -> Result<()> {
        let out = &mut self.sections;
        writeln!(out, "<section>\n<h2>{}</h2>", escaped(&o.image))?;
        figure(out, &o.clean, "clean")?;
        if let (Some(adversarial), Some(difference)) = (&o.adversarial, o.difference()) {
            figure(out, adversarial, "adversarial")?;
            figure(out, &difference, "difference, amplified")?;
        }
        writeln!(out, "<p>{}</p>\n</section>", escaped(&o.measurements()))?;
        Ok(())
    }

    /// The whole page.
    pub fn finish(self, title: &str, totals: &Totals) -> String {
        let (title, totals) = (escaped(title), escaped(&totals.to_string()));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <h1>{title}</h1>\n<p>{totals}</p>\n{}</html>\n",
            self.sections
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn outcome(image: &str) -> Outcome {
        let clean = Pixels::new(2, 1, vec![10; 6]).unwrap();
        Outcome {
            image: image.into(),
            attack: "ours",
            label: 3,
            time_ms: 5.0,
            forwards: 2.0,
            backwards: 1.0,
            verdict: None,
            adversarial: Some(Pixels::new(2, 1, vec![10, 12, 9, 10, 10, 10]).unwrap()),
            clean,
        }
    }

    #[test]
    fn names_are_text_and_pictures_are_inside() {
        let mut page = Page::default();
        page.add(&outcome("<script>alert(1)</script>.png")).unwrap();
        let page = page.finish("a & b", &Totals::default());
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("<title>a &amp; b</title>"));
        assert_eq!(page.matches("data:image/png;base64,").count(), 3);
        assert!(!page.contains("http"));
    }

    #[test]
    fn the_difference_is_grey_where_nothing_changed_and_fills_the_range_elsewhere() {
        let difference = outcome("x").difference().unwrap();
        // The largest change is 2 levels: 63 a level.
        assert_eq!(difference.rgb, [128, 254, 65, 128, 128, 128]);
    }
}
