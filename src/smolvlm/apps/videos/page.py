"""The search page: one file, no framework, nothing from elsewhere; English and Chinese by the browser's language."""

from __future__ import annotations

import base64
import hashlib

from smolvlm.apps.local_server import Reply

_STYLE = """
:root{color-scheme:light dark}body{font:1rem/1.4 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem}
form{display:flex;gap:.5rem}input{flex:1;min-width:0;font:inherit;padding:.5rem}button,a.file{font:inherit;padding:.5rem .8rem}
video{width:100%;max-height:55vh;background:#000;margin:1rem 0}ul{list-style:none;padding:0;display:grid;gap:1rem;
grid-template-columns:repeat(auto-fill,minmax(12rem,1fr))}li button{width:100%;text-align:left;padding:0;border:1px solid #8886;
border-radius:.4rem;overflow:hidden;background:none;color:inherit;cursor:pointer}li img{width:100%;display:block;aspect-ratio:16/9;
object-fit:contain;background:#0002}li span{display:block;padding:.3rem .5rem}small{opacity:.75}
"""
_SCRIPT = """
const T={en:{title:"Search in videos",ask:"What happens? e.g. a cat falls",go:"Search",busy:"Searching ...",none:"Nothing matches.",
near:"The nearest is",save:"Download as",have:n=>n+" videos are indexed."},
zh:{title:"在视频中搜索",ask:"发生了什么？例如 a cat falls",go:"搜索",busy:"正在搜索……",none:"没有匹配的内容。",
near:"最接近的是",save:"下载为",have:n=>"已索引 "+n+" 个视频。"}};
const L=navigator.language.startsWith("zh")?"zh":"en",t=T[L],$=i=>document.getElementById(i);
document.documentElement.lang=L;document.title=$("title").textContent=t.title;$("q").placeholder=t.ask;$("go").textContent=t.go;
const clock=s=>{s=Math.floor(s);const m=Math.floor(s/60)%60,h=Math.floor(s/3600),p=x=>String(x).padStart(2,"0");
return h?h+":"+p(m)+":"+p(s%60):m+":"+p(s%60)};
const say=x=>{$("said").textContent=x};
const get=async u=>{const r=await fetch(u),j=await r.json();if(!r.ok)throw new Error(j.error||r.status);return j};
get("videos").then(v=>say(t.have(v.length))).catch(e=>say(e.message));
function seek(h){const v=$("player"),u="video?id="+h.id;v.hidden=false;
if(v.dataset.file!==h.file){v.src=u;v.dataset.file=h.file;v.onloadedmetadata=()=>{v.currentTime=h.start_s;v.play().catch(()=>{})}}
else{v.currentTime=h.start_s;v.play().catch(()=>{})}v.scrollIntoView({behavior:"smooth"})}
function card(h){const li=document.createElement("li"),b=document.createElement("button"),i=document.createElement("img"),
s=document.createElement("span"),w=document.createElement("small");i.src="frame.jpg?id="+h.id;i.alt="";i.loading="lazy";
s.textContent=clock(h.start_s)+"  "+h.caption+"  "+Math.round(h.probability*100)+" %";w.textContent=h.file+": "+h.why;
s.append(document.createElement("br"),w);b.append(i,s);b.onclick=()=>seek(h);li.append(b);return li}
$("form").onsubmit=async e=>{e.preventDefault();say(t.busy);$("hits").replaceChildren();$("save").replaceChildren();
try{const f=await get("search?q="+encodeURIComponent($("q").value));
say(f.hits.length?"":t.none+(f.nearest?" "+t.near+": "+f.nearest.caption+" ("+clock(f.nearest.start_s)+")":""));
$("hits").replaceChildren(...f.hits.map(card));
if(f.hits.length){const ids=f.hits.map(h=>h.id).join(",");$("save").append(t.save+" ");
for(const k of["xspf","m3u8"]){const a=document.createElement("a");a.href="playlist."+k+"?ids="+ids;a.textContent=k.toUpperCase();
a.className="file";$("save").append(a)}}}catch(x){say(x.message)}};
"""


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page() -> Reply:
    """The page, which may run its own script and load from its own server alone."""
    policy = (
        f"default-src 'none'; script-src 'sha256-{_hash(_SCRIPT)}'; style-src 'sha256-{_hash(_STYLE)}'; connect-src 'self'; "
        "img-src 'self'; media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    body = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>smolvlm</title><style>{_STYLE}</style></head>
<body><h1 id="title"></h1>
<form id="form"><input id="q" autofocus autocomplete="off" maxlength="300"><button id="go"></button></form>
<p id="said" role="status"></p><video id="player" controls hidden></video><ul id="hits"></ul><p id="save"></p>
<script>{_SCRIPT}</script></body></html>
"""
    return Reply(body.encode(), "text/html; charset=utf-8", headers={"Content-Security-Policy": policy})
