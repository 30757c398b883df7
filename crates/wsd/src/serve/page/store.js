// Chats and settings in this browser's storage; where there is none, in this page alone.

const CHATS = "wsd.chats", SETTINGS = "wsd.settings";
const MOST_CHATS = 50, MOST_BYTES = 4e6;

function read(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}
function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

let chats = read(CHATS, []);
if (!Array.isArray(chats)) chats = [];

export const all = () => chats;
// Saves a chat as the newest one. The oldest go where there are too many.
export function save(chat) {
  chats = [chat, ...chats.filter(({ id }) => id !== chat.id)].slice(0, MOST_CHATS);
  while (chats.length > 1 && (JSON.stringify(chats).length > MOST_BYTES || !write(CHATS, chats))) chats.pop();
  write(CHATS, chats);
}
export function remove(id) {
  chats = id === undefined ? [] : chats.filter((chat) => chat.id !== id);
  write(CHATS, chats);
}
export const settings = () => read(SETTINGS, {});
export const saveSettings = (values) => write(SETTINGS, values);
