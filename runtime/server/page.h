/* page.h - the server's page, one file without external parts, made from runtime/server/page/
 * when the program is built. */
#ifndef RUNTIME_PAGE_H
#define RUNTIME_PAGE_H

extern const unsigned char page_html[]; /* [page_bytes] UTF-8 */
extern const unsigned page_bytes;
/* The Content-Security-Policy to send with it: its own style and script, requests to its own
 * server, and nothing else. */
extern const char page_policy[];

#endif
