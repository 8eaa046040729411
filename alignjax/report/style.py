"""The report's style sheet: one column, system fonts, light and dark."""

# Eight hues that differ in lightness too; contrast at least 4.5 on the page.
_LIGHT = ('#5b6472', '#0a5fb0', '#b8420b', '#157347', '#8a3ca0', '#946200',
          '#0b7285', '#b3225e')
_DARK = ('#a3adbb', '#6cb2ff', '#ff9b63', '#5fd09a', '#d59bea', '#e5b84c',
         '#5fcbdc', '#ff8db5')


def _palette(colors: tuple[str, ...]) -> str:
  return ''.join(f'--c{i}:{color};' for i, color in enumerate(colors))


CSS = """
:root{color-scheme:light dark;--page:#fff;--ink:#1c2128;--soft:#5b6472;
--hair:#e3e6ea;--card:#f7f8fa;""" + _palette(_LIGHT) + """}
@media(prefers-color-scheme:dark){:root{--page:#14171c;--ink:#e4e7eb;
--soft:#a3adbb;--hair:#2d333c;--card:#1b2027;""" + _palette(_DARK) + """}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main,header,nav ul{max-width:1060px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
h1{font-size:30px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:21px;margin:52px 0 12px;scroll-margin-top:56px}
p{max-width:72ch;margin:0 0 14px}
.lead,figcaption,.note{color:var(--soft)}
nav{position:sticky;top:0;z-index:1;background:var(--page);margin-top:20px;
border-bottom:1px solid var(--hair)}
nav ul{display:flex;flex-wrap:wrap;gap:2px 22px;list-style:none;
padding-top:9px;padding-bottom:9px;font-size:14px}
a{color:var(--c1);text-decoration:none}a:hover{text-decoration:underline}
.charts{display:grid;gap:22px 28px;margin:10px 0 22px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,430px),1fr))}
figure{margin:0;min-width:0}.wide{grid-column:1/-1}
figure h3{font-size:14px;font-weight:600;margin:0 0 4px}
figcaption{font-size:13px;margin-top:2px}
svg{display:block;width:100%;height:auto;overflow:visible;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.grid{stroke:var(--hair);fill:none}.axis{stroke:var(--soft);fill:none}
.tick,.label{fill:var(--soft);font-variant-numeric:tabular-nums}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;
stroke-linecap:round}
.leader{fill:none;stroke:var(--c);opacity:.35}
.band{fill:var(--c);opacity:.13}.dot{fill:var(--c)}
.ring{fill:var(--page);stroke:var(--c);stroke-width:2}
.bar{fill:var(--c)}.error{stroke:var(--ink);stroke-width:1.6;fill:none}
.value{fill:var(--ink);font-size:11px}.name{fill:var(--c);font-weight:600}
""" + ''.join(f'.c{i}{{--c:var(--c{i})}}' for i in range(len(_LIGHT))) + """
.scroll{overflow-x:auto;margin:10px 0 22px}
table{border-collapse:collapse;font-size:14px;min-width:min(100%,430px)}
caption{text-align:left;font-weight:600;padding-bottom:6px}
th,td{padding:7px 26px 7px 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--hair)}
th:last-child,td:last-child{padding-right:0}
.note{font-size:14px}
th{color:var(--soft);font-weight:600;vertical-align:bottom}
tbody th{color:var(--ink);white-space:nowrap;vertical-align:top}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.exchange{border:1px solid var(--hair);border-radius:8px;margin:0 0 16px;
overflow:hidden}
.exchange>p{background:var(--card);margin:0;padding:9px 16px;max-width:none;
border-bottom:1px solid var(--hair);font-weight:600}
.exchange .kind{float:right;color:var(--soft);font-weight:400;font-size:13px}
.answers{display:grid;overflow-x:auto;
grid-template-columns:repeat(auto-fit,minmax(190px,1fr))}
.answers div{padding:10px 16px 12px;font-size:14px;line-height:1.45}
.answers h4{margin:0 0 4px;font-size:13px;color:var(--c)}
.answers .score{float:right;color:var(--soft);font-weight:400;
font-variant-numeric:tabular-nums}
.answers span{white-space:pre-wrap;overflow-wrap:anywhere}
footer{height:64px}
@media print{nav{position:static}figure,.exchange{break-inside:avoid}}
"""
