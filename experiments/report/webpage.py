"""report.html: one page that needs nothing beside itself."""

import html

_STYLE = """
:root { color-scheme: light; }
body {
  margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem;
  font: 1rem/1.5 Charter, "Bitstream Charter", Georgia, Cambria, serif;
  color: #222; background: #fff;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; line-height: 1.3; margin: 2.8rem 0 .7rem; }
nav { font-size: .9rem; margin: 1rem 0; }
nav a { display: inline-block; margin-right: 1rem; }
a { color: #0072b2; text-decoration: none; }
a:hover { text-decoration: underline; }
table, figcaption, .notes, dl, nav {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}
.wide { overflow-x: auto; }
table {
  border-collapse: collapse; font-size: .85rem; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
th, td { padding: .3rem .6rem; text-align: left; }
th { border-bottom: 1px solid #888; font-weight: 600; }
td { border-bottom: 1px solid #eee; }
th:first-child, td:first-child {
  position: sticky; left: 0; background: #fff; padding-left: 0;
}
.n { text-align: right; }
.notes { font-size: .8rem; color: #555; padding-left: 1.1rem;
  max-width: 46rem; }
.notes li { margin: .2rem 0; overflow-wrap: anywhere; }
figure { margin: 0; }
img { display: block; width: 100%; max-width: 40rem; }
figcaption { font-size: .8rem; color: #555; max-width: 40rem; }
dl { font-size: .9rem; margin: 0; padding: .7rem 0;
  border-top: 1px solid #ddd; display: grid; gap: .15rem .9rem;
  grid-template-columns: min(12rem, 30%) 1fr; }
dt { color: #666; font-size: .8rem; overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
dd.given { font-weight: 600; }
"""


def document(title: str, sections: list[tuple[str, str]]) -> str:
  """Returns the whole page: a title, links, then the HTML of each section."""
  title, links, body = html.escape(title), [], []
  for i, (name, content) in enumerate(sections):
    links.append(f'<a href="#s{i}">{html.escape(name)}</a>\n')
    body.append(f'<section id="s{i}">\n{content}\n</section>\n')
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    f"<h1>{title}</h1>\n<nav>\n{''.join(links)}</nav>\n{''.join(body)}"
    "</body>\n</html>\n"
  )


def samples(title: str, texts: list[dict[str, str]]) -> str:
  """Returns a section of sentences with their translations.

  Args:
    title: of the section.
    texts: as `SentenceFigures.samples` returns them.
  """
  blocks = [f"<h2>{html.escape(title)}</h2>"]
  for sentence in texts:
    blocks.append("<dl>")
    for name, text in sentence.items():
      given = ' class="given"' if name in ("source", "reference") else ""
      name, text = html.escape(name), html.escape(text)
      blocks.append(f"<dt>{name}</dt><dd{given}>{text}</dd>")
    blocks.append("</dl>")
  return "\n".join(blocks)
