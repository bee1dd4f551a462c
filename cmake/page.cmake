# Joins runtime/server/page/{index.html,page.css,page.js} to one page and writes it as C, with the
# content security policy that allows this page's own style and script and nothing else.
#
#   cmake -DFOLDER=runtime/server/page -DOUT=page.c -P cmake/page.cmake

# base64 of the SHA-256 of a text, as a policy names an inline script.
function(policy_hash out text)
  string(SHA256 hex "${text}")
  set(alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  set(base64 "")
  foreach(at RANGE 0 63 6) # three bytes give four digits
    string(SUBSTRING "${hex}0000" ${at} 6 part)
    math(EXPR bits "0x${part}")
    foreach(shift 18 12 6 0)
      math(EXPR digit "(${bits} >> ${shift}) & 63")
      string(SUBSTRING ${alphabet} ${digit} 1 letter)
      string(APPEND base64 ${letter})
    endforeach()
  endforeach()
  string(SUBSTRING ${base64} 0 43 base64) # 32 bytes fill 42 and two thirds of a digit
  set(${out} "'sha256-${base64}='" PARENT_SCOPE)
endfunction()

# Brackets and semicolons are meant as they stand: a file is one text, never a list.
file(READ ${FOLDER}/index.html html)
file(READ ${FOLDER}/page.css css)
file(READ ${FOLDER}/page.js js)
policy_hash(style "${css}")
policy_hash(script "${js}")
string(REPLACE "/*page.css*/" "${css}" html "${html}")
string(REPLACE "/*page.js*/" "${js}" html "${html}")
string(HEX "${html}" hex)
string(LENGTH "${hex}" n)
math(EXPR n "${n} / 2")
string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(CONCAT policy "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
  "form-action 'none'; frame-ancestors 'none'; style-src ${style}; script-src ${script}")
file(WRITE ${OUT} "#include \"runtime/server/page.h\"\n\nconst unsigned char page_html[] = {\n${bytes}};\n"
  "const unsigned page_bytes = ${n};\nconst char page_policy[] = \"${policy}\";\n")
