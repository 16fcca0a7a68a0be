// A WebSocket client for loopback: no more than what a test of a sketch needs.
#include "Arduino.h"
#include "WebSocketsClient.h"
#include "WiFi.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

SerialPort Serial;
Network WiFi;

void configTime(long, int, const char *) {}

void WebSocketsClient::begin(const char *host, uint16_t port, const char *url, const char *protocol) {
  host_ = host, port_ = port, url_ = url, protocol_ = protocol;
}

void WebSocketsClient::beginSslWithCA(const char *, uint16_t, const char *, const char *, const char *) { abort(); }
void WebSocketsClient::setExtraHeaders(const char *headers) { headers_ = headers ? headers : ""; }
void WebSocketsClient::setReconnectInterval(unsigned long time) { interval_ = time; }
void WebSocketsClient::enableHeartbeat(uint32_t, uint32_t, uint8_t) {}
void WebSocketsClient::onEvent(WebSocketClientEvent event) { event_ = event; }
bool WebSocketsClient::sendTXT(char *payload, size_t length, bool) { return frame(1, payload, length); }
bool WebSocketsClient::sendTXT(const char *payload, size_t length) { return frame(1, payload, length); }

bool WebSocketsClient::frame(int opcode, const char *payload, size_t length) {
  if (fd_ < 0 || length > 125) return false;
  const uint8_t mask[4] = {1, 2, 3, 4};
  std::vector<uint8_t> out = {uint8_t(0x80 | opcode), uint8_t(0x80 | length), 1, 2, 3, 4};
  for (size_t i = 0; i < length; i++) out.push_back(uint8_t(payload[i]) ^ mask[i & 3]);
  return send(fd_, out.data(), out.size(), MSG_NOSIGNAL) == ssize_t(out.size());
}

void WebSocketsClient::drop() {
  close(fd_);
  fd_ = -1;
  failed_ = millis();
  data_.clear();
  event_(WStype_DISCONNECTED, NULL, 0);
}

bool WebSocketsClient::connect() {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port_);
  inet_pton(AF_INET, host_.c_str(), &address.sin_addr);
  fd_ = socket(AF_INET, SOCK_STREAM, 0);
  if (::connect(fd_, (sockaddr *)&address, sizeof address) != 0) return false;
  String request = "GET " + url_ + " HTTP/1.1\r\nHost: " + host_ + ":" + std::to_string(port_) +
                   "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\nSec-WebSocket-Protocol: " +
                   protocol_ + "\r\n" + headers_ + "\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n";
  send(fd_, request.data(), request.size(), MSG_NOSIGNAL);
  String head;
  for (char c; head.find("\r\n\r\n") == String::npos;) {
    if (recv(fd_, &c, 1, 0) != 1) return false;
    head += c;
  }
  return head.compare(0, 12, "HTTP/1.1 101") == 0;
}

void WebSocketsClient::loop() {
  if (fd_ < 0) {
    if (failed_ && millis() - failed_ < interval_) return;
    if (!connect()) return drop();
    event_(WStype_CONNECTED, (uint8_t *)&url_[0], url_.size());
  }
  pollfd ready = {fd_, POLLIN, 0};
  if (poll(&ready, 1, 10) <= 0) return;
  uint8_t some[4096];
  ssize_t count = recv(fd_, some, sizeof some, 0);
  if (count <= 0) return drop();
  data_.insert(data_.end(), some, some + count);
  while (data_.size() >= 2) {
    size_t size = data_[1] & 127, start = 2;
    if (size == 126) {
      if (data_.size() < 4) return;
      size = size_t(data_[2]) << 8 | data_[3], start = 4;
    }
    if (data_.size() < start + size) return;
    int opcode = data_[0] & 15;
    String text(data_.begin() + start, data_.begin() + start + size);
    data_.erase(data_.begin(), data_.begin() + start + size);
    if (opcode == 8) return drop();
    if (opcode == 9) frame(10, text.data(), text.size());
    if (opcode == 1) event_(WStype_TEXT, (uint8_t *)&text[0], text.size());
  }
}

int main() {
  setup();
  for (;;) loop();
}
