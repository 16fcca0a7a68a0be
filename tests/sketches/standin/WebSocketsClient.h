// The public part of WebSocketsClient (arduinoWebSockets 2.x) that sketches use, with its signatures and defaults.
#pragma once
#include <functional>
#include <vector>

#include "Arduino.h"

enum WStype_t { WStype_ERROR, WStype_DISCONNECTED, WStype_CONNECTED, WStype_TEXT, WStype_BIN, WStype_PING, WStype_PONG };

class WebSocketsClient {
 public:
  typedef std::function<void(WStype_t type, uint8_t *payload, size_t length)> WebSocketClientEvent;

  void begin(const char *host, uint16_t port, const char *url = "/", const char *protocol = "arduino");
  void beginSslWithCA(const char *host, uint16_t port, const char *url = "/", const char *CA_cert = NULL,
                      const char *protocol = "arduino");
  void setExtraHeaders(const char *extraHeaders = NULL);
  void setReconnectInterval(unsigned long time);
  void enableHeartbeat(uint32_t pingInterval, uint32_t pongTimeout, uint8_t disconnectTimeoutCount);
  void onEvent(WebSocketClientEvent event);
  bool sendTXT(char *payload, size_t length = 0, bool headerToPayload = false);
  bool sendTXT(const char *payload, size_t length = 0);
  void loop(void);

 private:
  String host_, url_, protocol_, headers_ = "Origin: file://";
  uint16_t port_ = 0;
  unsigned long interval_ = 500, failed_ = 0;
  WebSocketClientEvent event_;
  int fd_ = -1;
  std::vector<uint8_t> data_;

  bool connect();
  void drop();
  bool frame(int opcode, const char *payload, size_t length);
};
