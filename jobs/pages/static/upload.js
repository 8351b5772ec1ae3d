// Sends one file as the body of one request, with its progress, and leads to its page.

const form = document.getElementById("upload");
const words = JSON.parse(form.dataset.words);
const most = Number(form.dataset.most);
const [input, chosen, preview, player, previewWords, start, cancel, progress, said, wrong] = [
  "file", "chosen", "preview", "player", "preview-words", "start", "cancel", "progress", "said", "wrong",
].map((id) => document.getElementById(id));
let file = null;
let sending = null;

const fill = (text, values) => text.replace(/{(\w+)}/g, (_, name) => String(values[name] ?? ""));

// As the pages do with names: what hides, or turns text around, is spelled out.
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };
const plain = (name) =>
  name.replace(/(?! )[\p{C}\p{Z}]/gu, (c) => {
    const code = c.codePointAt(0).toString(16);
    if (code.length > 4) return `\\U${code.padStart(8, "0")}`;
    return SHORT[c] ?? (code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`);
  });

function size(bytes) {
  const units = ["B", "KB", "MB", "GB"];
  const step = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${(bytes / 1000 ** step).toFixed(step && bytes / 1000 ** step < 10 ? 1 : 0)} ${units[step]}`;
}

function refusal(candidate) {
  if (candidate === null) return words.nothing;
  if (candidate.size === 0) return words.empty_file;
  if (candidate.size > most) return fill(words.too_large, { size: size(candidate.size), most: size(most) });
  return "";
}

function choose(candidate) {
  file = candidate;
  // textContent everywhere: a name is text, whatever is in it.
  chosen.textContent = file ? fill(words.chosen, { name: plain(file.name), size: size(file.size) }) : "";
  const odd = file && !file.type.startsWith("video/") && !/\.(mkv|avi|m?ts|m2ts|flv|wmv|asf|mpe?g|ogv|gif)$/i.test(file.name);
  said.textContent = odd ? words.doubtful : "";
  wrong.textContent = file ? refusal(file) : "";
  if (player.src) URL.revokeObjectURL(player.src);
  preview.hidden = !file || refusal(file) !== "";
  previewWords.textContent = words.preview;
  if (!preview.hidden) player.src = URL.createObjectURL(file);
  else player.removeAttribute("src");
}

function idle(text, alarm) {
  sending = null;
  progress.hidden = cancel.hidden = true;
  start.disabled = input.disabled = false;
  (alarm ? wrong : said).textContent = text;
  if (alarm) said.textContent = "";
}

function send() {
  wrong.textContent = refusal(file);
  if (wrong.textContent) return;
  const choice = new URLSearchParams({ profile: form.elements.profile.value });
  if (form.elements.weights) choice.set("weights", form.elements.weights.value);
  sending = new XMLHttpRequest();
  sending.open("POST", `/uploads?${choice}`);
  sending.setRequestHeader("Content-Type", "application/octet-stream");
  sending.setRequestHeader("X-File-Name", encodeURIComponent(file.name.toWellFormed?.() ?? file.name).slice(0, 4000));
  sending.setRequestHeader("HX-Request", "true"); // refusals as plain words
  sending.upload.onprogress = (event) => {
    const percent = Math.floor((100 * event.loaded) / (event.total || 1));
    progress.value = percent;
    said.textContent = percent < 100 ? fill(words.sending, { percent, size: size(file.size) }) : words.sent;
  };
  const request = sending;
  request.onload = () => {
    if (request.status === 201) location.assign(JSON.parse(request.responseText).path);
    else idle(new DOMParser().parseFromString(request.responseText, "text/html").body.textContent.trim(), true);
  };
  request.onerror = () => idle(words.lost, true);
  request.onabort = () => idle(words.cancelled, false);
  progress.hidden = cancel.hidden = false;
  start.disabled = input.disabled = true;
  request.send(file);
}

input.addEventListener("change", () => choose(input.files[0] ?? null));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
cancel.addEventListener("click", () => sending?.abort());
player.addEventListener("error", () => {
  if (!preview.hidden) previewWords.textContent = words.no_preview;
});
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    form.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !sending && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  });
}
document.addEventListener("dragleave", () => form.classList.remove("over"));
